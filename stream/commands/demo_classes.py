"""How the demo's 2-D classes were found: whether the particles of a class were simulated in the same view."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

PICTURE = "classes.png"
FIRST = 100


def settings() -> dict[str, Any]:
    """The daemon's block ``classes`` in the demo: what a session does within an hour has to be seen in a minute."""
    return {"first_at": FIRST, "number": 8, "growth": 1.5, "finetune": False, "montage_every": 100}


def compare(directory: Path, truth: Path, reach_px: float) -> dict[str, Any]:
    """What is in ``directory``'s ``classes.h5`` beside the views that the particles in ``truth`` were simulated in.

    A classified particle counts as the true one within ``reach_px`` pixels. Empty where nothing was classified; where
    the file is damaged, ``error`` says so. ``purity``: share of the matched particles that show the view that is most
    frequent in their class; it and the other scores are None where particles may show any view.
    """
    from ...models.evaluate import cluster_scores
    from ..flow.frame import BadData
    from ..sinks.picks.classes_file import NAME, NONE, read_classes

    try:
        tables = read_classes(directory / NAME)
    except FileNotFoundError:
        return {}
    except BadData as error:
        return {"error": error.detail}
    rows = tables.particles
    shown = views(tables.micrographs, rows, truth, reach_px)
    classified = rows["class"] != NONE
    picture = directory / PICTURE
    found: dict[str, Any] = {
        "classes": len(tables.classes),
        "particles": int(classified.sum()),
        "unlabelled": int((~classified).sum()),
        "matched": int((classified & (shown > 0)).sum()),
        "views": len(np.unique(shown[shown > 0])),
        "purity": None,
        "homogeneity": None,
        "rand": None,
        "picture": str(picture) if picture.exists() else None,
    }
    which = classified & (shown > 0)
    if which.any():
        scores = cluster_scores(shown[which], rows["class"][which], resamples=0)
        found |= {name: getattr(scores, name).value for name in ("purity", "homogeneity", "rand")}
    return found


def views(micrographs: npt.NDArray[np.void], rows: npt.NDArray[np.void], truth: Path, reach_px: float) -> Ints:
    """The view of each of ``rows``, from 1; 0 where no true particle is near, or where it may show any view.

    ``micrographs``, ``rows``: tables of ``classes.h5``.
    """
    from ...models.particles.matching import match

    true = true_views(truth)
    found = np.zeros(len(rows), np.int32)
    for at, name in enumerate(micrographs["name"]):
        places, view = true.get(Path(str(name)).name, (np.zeros((0, 2), np.float32), np.zeros(0, np.int32)))
        mine = np.flatnonzero(rows["micrograph"] == at)
        pairs = match(rows["x"][mine], rows["y"][mine], places[:, 0], places[:, 1], reach_px)
        found[mine[pairs.found]] = view[pairs.true]
    return found


def true_views(truth: Path) -> dict[str, tuple[Floats, Ints]]:
    """Centres (n, 2; x, y) and views (n,) by the micrograph's name without folders, of the emulator's CSV."""
    rows: dict[str, list[tuple[float, float, int]]] = {}
    with truth.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            rows.setdefault(Path(row["micrograph"]).name, []).append(
                (float(row["x"]), float(row["y"]), int(row["view"]))
            )
    return {
        name: (np.array([(x, y) for x, y, _ in many], np.float32), np.array([view for *_, view in many], np.int32))
        for name, many in rows.items()
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The lines of the summary for a person. ``found``: of ``compare``, and of the daemon's own summary."""
    if "error" in found:
        return [f"classes     {found['error']}"]
    if not found.get("particles"):
        return ["classes     none: too few particles came"]
    lines = [f"classes     {found['classes']} classes of {found['particles']} particles"]
    if found["purity"] is not None:
        share = f"{100 * found['purity']:.1f} % of the {found['matched']} true ones"
        lines[0] += f"; {share} are in a class of their own view"
        lines.append(
            f"            {found['views']} views were simulated; homogeneity {found['homogeneity']:.2f}, "
            f"adjusted Rand index {found['rand']:.2f}"
        )
    if found.get("pick_to_class_median_s") is not None:
        lines.append(f"            {found['pick_to_class_median_s']:.1f} s from pick to class (median)")
    if found["picture"]:
        lines.append(f"            {os.path.relpath(found['picture'])}")
    return lines
