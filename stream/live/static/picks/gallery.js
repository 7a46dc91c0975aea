// Panel: the last particles; a click leads to the micrograph that each was cut from.

import { el, panel, setText } from "../dom.js";
import { thumbnail } from "./grey.js";
import { short } from "./words.js";

/** `open(particle)`: a person wants to see where this particle lies. */
export function gallery(session, open) {
  const { root, body, note } = panel("Last particles", { area: "particles" });
  const grid = el("div", { class: "gallery" });
  const empty = el("p", { class: "quiet", text: "None yet: they come with the first micrograph that has picks." });
  body.append(empty, grid);

  session.on("particles", () => {
    const wanted = [...session.particles].reverse();
    empty.hidden = wanted.length > 0;
    setText(note, wanted.length ? `the last ${wanted.length}, newest first; number: score` : "");
    const old = new Map([...grid.children].map((child) => [child.dataset.id, child]));
    const tiles = wanted.map((particle) => old.get(String(particle.id)) ?? tile(particle, session, open));
    const kept = new Set(tiles);
    for (const child of [...grid.children]) if (!kept.has(child)) child.remove();
    tiles.forEach((one, i) => grid.children[i] !== one && grid.insertBefore(one, grid.children[i] ?? null));
  });
  return { root };
}

function tile(particle, session, open) {
  const score = particle.score.toFixed(2);
  const row = session.byId.get(String(particle.row));
  const text = `Particle of ${row ? short(row.name) : "a micrograph"}, score ${score}`;
  const attributes = { type: "button", class: "particle", title: `${text}: show where it lies`, dataset: { id: String(particle.id) } };
  const button = el("button", attributes, thumbnail(particle, text), el("span", { text: score }));
  button.addEventListener("click", () => open(particle));
  return button;
}
