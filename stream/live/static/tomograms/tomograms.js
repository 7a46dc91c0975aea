// The page of the beamline cryoet_mining: builds the panels and brings them the daemon's news.
//
//   mount(root, net, tools)    see ../main.js
//
// Panels that micrographs have as well come from ../picks; all hear of news through its `Session`.

import { control } from "../control.js";
import { el, fmt, setText } from "../dom.js";
import { flow } from "../flow.js";
import { Session } from "../picks/session.js";
import { table } from "../picks/table.js";
import { waiting } from "../picks/waiting.js";
import { clusters } from "./clusters.js";
import { found, trend } from "./found.js";
import { tiles } from "./glance.js";
import { columns } from "./columns.js";
import { viewer } from "./viewer.js";

const SAID_MS = 6000;

/** The whole of it; `common` says that control and stages are placed here. */
export function mount(root, net, tools) {
  const session = new Session(() => net.refresh());
  const said = el("p", { class: "toast", role: "status" });
  const sheet = clusters(net, passing(said));
  const look = viewer(session, net, (cluster) => sheet.goTo(cluster));
  const change = control(net, { what: "tomograms" });
  const streams = flow({ what: "tomograms" });
  const lanes = [
    [look.root],
    [found(session).root, trend(session).root, waiting(session).root],
    [table(session, columns(session)).root],
    [change.root, change.log.root, streams.ledger, streams.stages],
  ].map((panels, i) => el("div", { class: `lane c${i + 1}` }, panels));
  root.append(el("div", { class: "picks mining" }, sheet.root, lanes, said));

  session.on("snapshot", () => {
    sheet.take(session.snapshot.mining);
    for (const part of [change, streams]) part.update(session.snapshot);
  });
  net.on("facts", (facts) => session.facts(facts));
  net.on("snapshot", (snapshot) => {
    // The tab's title goes on while the page is hidden; the panels wait for the next frame that is drawn.
    tools.title(`${fmt.count(snapshot.totals?.tomograms)} tomograms`);
    if (tools.shown()) tools.glance(tiles(snapshot));
    session.state(snapshot);
  });
  return { root, session, common: true };
}

function passing(node) {
  let timer = 0;
  return (text) => {
    setText(node, text);
    clearTimeout(timer);
    timer = setTimeout(() => setText(node, ""), SAID_MS);
  };
}
