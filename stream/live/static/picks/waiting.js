// Panel: files that wait, why, and what ends it.

import { el, fmt, panel, rows, setText } from "../dom.js";
import { short, waits } from "./words.js";

const LISTED = 6;

export function waiting(session) {
  const { root, body, note } = panel("Files waiting", { area: "waiting" });
  const none = el("p", { class: "quiet", text: "None: every file that was found has been read." });
  const reasons = el("ul", { class: "reasons" });
  const files = el("ul", { class: "files" });
  body.append(none, reasons, files);

  session.on("snapshot", () => {
    const found = session.snapshot.waiting;
    if (!found) return;
    const counts = Object.entries(found.reasons ?? {}).filter(([, n]) => n > 0);
    counts.sort((a, b) => b[1] - a[1]);
    const all = counts.reduce((sum, [, n]) => sum + n, 0);
    none.hidden = all > 0;
    setText(note, all ? `${fmt.count(all)}, the oldest for ${fmt.seconds(found.oldest_s)}` : "");
    const items = rows(reasons, counts.length, () =>
      el("li", {}, el("b"), el("span", { class: "reason" }), el("span", { class: "quiet" })),
    );
    counts.forEach(([reason, n], i) => {
      const [why, remedy] = waits(reason);
      setText(items[i].children[0], fmt.count(n));
      setText(items[i].children[1], why);
      setText(items[i].children[2], remedy);
    });
    const listed = (found.files ?? []).slice(0, LISTED);
    const lines = rows(files, listed.length, () => el("li", {}, el("span", { class: "name" }), el("span", { class: "quiet" })));
    listed.forEach(({ name, reason, seconds }, i) => {
      setText(lines[i].children[0], short(name));
      lines[i].children[0].title = name;
      setText(lines[i].children[1], `${waits(reason)[0]}, ${fmt.seconds(seconds)}`);
    });
  });
  return { root };
}
