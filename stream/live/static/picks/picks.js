// The page of the beamline cryoem_picks: builds the panels and brings them the daemon's news.
//
//   mount(root, net, tools)    see ../main.js
//
// Each panel is a file of this folder and hears of news through one `Session`: nothing is drawn more than once a frame,
// nothing while the page is hidden, and what is out of sight is drawn when it is seen.

import { paintPicture } from "../colours.js";
import { control } from "../control.js";
import { el, fmt, setText } from "../dom.js";
import { flow } from "../flow.js";
import { review } from "../review.js";
import { classes } from "./classes.js";
import { gallery } from "./gallery.js";
import { maps } from "./maps.js";
import { Marks } from "./marks.js";
import { Session } from "./session.js";
import { table } from "./table.js";
import { threshold } from "./threshold.js";
import { viewer } from "./viewer.js";
import { waiting } from "./waiting.js";
import { tiles, yields } from "./yields.js";

const SAID_MS = 6000;

/** The whole of it; `common` says that control and stages are placed here. */
export function mount(root, net, tools) {
  const session = new Session(() => net.refresh());
  const said = el("p", { class: "toast", role: "status" });
  const say = passing(said);
  let look = null;
  const marks = new Marks(net, () => look.reload(), say);
  look = viewer(session, net, marks, say);

  const judge = review(net, {
    question,
    words: { right: "A particle", wrong: "None" },
    hint: "Picks and, of what was not picked, random candidates: only both together measure purity and recall.",
    draw: (canvas, picture) => paintPicture(canvas, picture, { map: "grey" }),
    open: (picture) => look.goTo(picture),
  });
  const scores = threshold(session, net, {
    proposed: (value) => look.preview(value),
    applied: () => look.preview(null),
  });
  const classed = classes(net, say);
  const change = control(net, { what: "micrographs" });
  const streams = flow({ what: "micrographs" });
  const columns = [
    [look.root, gallery(session, (particle) => look.goTo(particle)).root, waiting(session).root],
    [yields(session).root, scores.root, judge.root],
    [maps(session).root, table(session).root],
    [change.root, change.log.root, streams.ledger, streams.stages],
  ];
  const lanes = columns.map((panels, i) => el("div", { class: `lane c${i + 1}` }, panels));
  lanes.splice(2, 0, classed.root); // below what picks the particles, above where they come from
  root.append(el("div", { class: "picks" }, lanes, said));

  session.on("rows", () => look.changed());
  let reviewed = "";
  session.on("snapshot", () => {
    const { right, wrong } = session.snapshot.review ?? {};
    if (reviewed !== `${right} ${wrong}`) look.reload(); // somebody marked something, here or elsewhere
    reviewed = `${right} ${wrong}`;
    classed.take(session.snapshot.classes);
    for (const part of [judge, change, streams]) part.update(session.snapshot);
  });
  net.on("facts", (facts) => session.facts(facts));
  net.on("snapshot", (snapshot) => {
    // The tab's title goes on while the page is hidden; the panels wait for the next frame that is drawn.
    tools.title(`${fmt.count(snapshot.yield?.recent)} picks`);
    if (tools.shown()) tools.glance(tiles(snapshot));
    session.state(snapshot);
  });
  net.on("picture", (picture) => session.picture(picture));
  return { root, session, viewer: look, common: true };
}

function question(picture) {
  const score = typeof picture.score === "number" ? ` (score ${picture.score.toFixed(2)})` : "";
  const picked = picture.group === "particle";
  return picked ? `Picked${score}. Is this a particle?` : `Not picked${score}. Is this a particle?`;
}

function passing(node) {
  let timer = 0;
  return (text) => {
    setText(node, text);
    clearTimeout(timer);
    timer = setTimeout(() => setText(node, ""), SAID_MS);
  };
}
