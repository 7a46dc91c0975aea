// Panel: the chosen tomogram: central slices with labels and sub-volumes, which of them are shown, and its numbers.

import { el, fmt, panel, rows, setText } from "../dom.js";
import { short } from "../picks/words.js";
import { Slices } from "./slices.js";
import { UNMARKED, colour } from "./words.js";

/** `session` as in picks/session.js; `goTo(cluster)`: a person wants to see that cluster. */
export function viewer(session, net, goTo) {
  const { root, head, body, note } = panel("Tomogram", { area: "tomogram" });
  const canvas = el("canvas", { class: "mine-slices", role: "img" });
  const field = el("div", { class: "field-frame" }, canvas);
  const follow = el("input", { type: "checkbox", name: "follow", checked: true });
  const step = (by, text, label) => el("button", { type: "button", class: "small", text, "aria-label": label, onclick: () => beside(by) });
  head.append(el("span", { class: "tools" }, step(-1, "◂ older", "The tomogram before"), step(1, "newer ▸", "The tomogram after"), el("label", { class: "switch" }, follow, "Follow the newest")));
  const labels = toggle("labels", "Labels", true);
  const picks = toggle("picks", "Sub-volumes", true);
  const all = toggle("all", "of all depths", false);
  const groups = el("span", { class: "mine-toggles", role: "group", "aria-label": "Groups that are shown" });
  const readout = el("p", { class: "what", role: "status" });
  const facts = el("p", { class: "class-line" });
  const problem = el("p", { class: "warn", role: "status", hidden: true });
  const now = el("p", { class: "mine-now", hidden: true }, el("progress", { max: "1", "aria-label": "The tomogram in work" }), el("span"));
  const none = el("p", { class: "quiet", text: "None yet: the first is shown as soon as it is mined." });
  const hidden = new Set();
  body.append(now, none, field, el("div", { class: "tools-row" }, labels.root, picks.root, all.root, groups), readout, facts, problem);

  const view = new Slices(canvas, net, {
    changed: () => tell(),
    hover: (found) => setText(readout, found ? under(found) : HINT),
    click: (cluster) => goTo(cluster),
  });
  setText(readout, HINT);

  function toggle(name, text, on) {
    const box = el("input", { type: "checkbox", name, checked: on, oninput: () => view.set({ [name]: box.checked }) });
    return { root: el("label", { class: "switch" }, box, text), box };
  }

  function beside(by) {
    const at = session.rows.findIndex((row) => String(row.id) === session.chosen);
    const to = session.rows[at + by];
    if (to) session.choose(String(to.id), { follow: at + by === session.rows.length - 1 });
  }

  function under({ x, y, z, label, cluster, name }) {
    const place = `x ${x}, y ${y}, z ${z}`;
    const said = [place, label && `label: ${label}`, cluster !== null && (cluster ? `sub-volume of cluster ${cluster}, ${name || UNMARKED}; a click leads there` : "sub-volume of no cluster")];
    return said.filter(Boolean).join(" · ");
  }

  function tell() {
    const { row } = session;
    none.hidden = row !== null;
    field.hidden = row === null;
    if (!row) return;
    const shape = [...row.shape].reverse().join(" × ");
    setText(note, short(row.name));
    note.title = row.name;
    const warned = row.warnings?.length ? [`▲ ${row.warnings.join("; ")}`] : [];
    const error = typeof row.error === "number" ? [`error ${fmt.number(row.error, 2)}`] : [];
    setText(facts, [`${shape} voxels of ${fmt.number(row.voxel_a, 3)}\u202fÅ`, `${fmt.count(row.picks)} sub-volumes`, ...error, `${row.mode === "annotate" ? "annotated" : "explored"} in ${fmt.seconds(row.seconds)}`, row.labels ? "" : "no labels", ...warned].filter(Boolean).join(" · "));
    problem.hidden = !view.found?.error;
    setText(problem, `▲ ${view.found?.error ?? ""}`);
    canvas.setAttribute("aria-label", `${short(row.name)}: central slices xy, xz and yz, ${fmt.count(row.picks)} sub-volumes${row.labels ? ", labels as colours" : ""}`);
    const off = (box, no, why) => {
      box.disabled = no;
      box.parentElement.title = no ? why : "";
    };
    off(labels.box, !row.labels, "This tomogram has no labels: there was no segmentation when it was mined.");
    legend(row);
  }

  function inWork(work) {
    now.hidden = !work;
    if (!work) return;
    const [bar, text] = now.children;
    bar.value = work.of > 0 ? Math.min(1, work.done / work.of) : 0;
    setText(text, `in work: ${work.text}`);
  }

  function legend(row) {
    const given = session.snapshot?.mining?.groups ?? [];
    const shown = [...given, { name: "", colour: "" }];
    rows(groups, shown.length, () => entry()).forEach((node, i) => {
      const { name, colour: ink } = shown[i];
      const [box, swatch, word, count] = node.children;
      box.dataset.name = name;
      box.checked = !hidden.has(name);
      swatch.classList.toggle("ring", !name);
      swatch.style.setProperty("background", name ? colour(ink) : "transparent");
      setText(word, name || UNMARKED);
      setText(count, fmt.count(row.by_class?.[name] ?? 0));
    });
  }

  function entry() {
    const box = el("input", { type: "checkbox", class: "group" });
    box.addEventListener("input", () => {
      if (box.checked) hidden.delete(box.dataset.name);
      else hidden.add(box.dataset.name);
      view.set({ hidden });
    });
    return el("label", { class: "switch" }, box, el("span", { class: "swatch" }), el("span"), el("span", { class: "quiet" }));
  }

  follow.addEventListener("input", () => session.follow(follow.checked));
  const chosen = () => {
    follow.checked = session.following;
    view.show(session.row);
    tell();
  };
  session.on("chosen", chosen);
  session.on("rows", () => {
    const newest = session.rows.at(-1);
    if (session.following && newest && String(newest.id) !== session.chosen) session.choose(String(newest.id), { follow: true });
    else chosen();
  });
  let coloured = "";
  session.on("snapshot", () => {
    inWork(session.snapshot.work);
    const { groups: given, list } = session.snapshot.mining ?? { groups: [], list: [] };
    const now = JSON.stringify([given, list.map(({ id, mark }) => [id, mark])]);
    if (now === coloured) return;
    coloured = now;
    const names = new Map(list.map(({ id, mark }) => [id, mark]));
    const inks = new Map(given.map((group) => [group.name, group.colour]));
    view.set({ group: (cluster) => names.get(cluster) ?? "", ink: (name) => inks.get(name) });
    tell();
  });
  tell();
  return { root };
}

const HINT = "Point at a slice: place, label and the sub-volume below. The slices go through the middle.";
