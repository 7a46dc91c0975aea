"""Tables and pictures of a study of simulated tomograms."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..evaluate import mean_interval
from .simulator import Simulated
from .truth import GROUPS, truth_of

Row: TypeAlias = Mapping[str, Any]
COLOURS = ("#e6550d", "#31a2f2", "#66c266", "#ffd21f")
"""Of the groups, in their order."""
SHOWN = ("membrane", "globule")
"""Groups with targets; tables have the others after them."""
TARGETS: Mapping[str, float] = {"membrane": 0.8, "globule": 0.7}

SAID = """Every number is the mean over the test tomograms, which no network and no mark has seen, with its 95 %
bootstrap interval over tomograms in brackets. *SNR*: variance of a tilt image's signal, of membranes and macromolecules
after the transfer function, over the variance of its noise. Marks imitate a person: a cluster has the group that half
or more of its members in the marking tomograms are of. *Shown*: without the voxels of membranes that face where no tilt
of the series shows them. F1 of voxels is the same number as Dice. *Ribosome-like*: clusters half or more of whose
members in the marking tomograms are within half a radius of a ribosome."""

SAID_OF_LOSSES = """*Found*: precision / recall of the segmentation's voxels on the test tomograms. The last three
columns: shares of the voxels of ribosomes and of other globules that it labels as globules, and of the latter with
another group's label."""


def keep_picture(path: Path, made: Simulated, labels: npt.NDArray[np.uint8]) -> None:
    """Keep what ``draw`` shows: the middle sections of a tomogram, its truth, what was found. Raises ``OSError``."""
    z, y, _ = (n // 2 for n in made.data.shape)
    truth = truth_of(made)
    # A few sections together: one alone is all noise.
    kept: dict[str, npt.NDArray[Any]] = {
        "data_xy": made.data[z - 2 : z + 3].mean(0),
        "data_xz": made.data[:, y - 2 : y + 3].mean(1),
    }
    for name, labels_of in (("truth", truth), ("found", labels)):
        kept |= {f"{name}_xy": labels_of[z], f"{name}_xz": labels_of[:, y]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)  # type: ignore[arg-type]


def draw(path: Path, shown: Mapping[str, npt.NDArray[Any]], title: str) -> None:
    """Sections across the beam and along it: the tomogram, its truth, what was found. Raises ``OSError``."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(12, 6.2), layout="constrained")
    heights = [shown["data_xy"].shape[0], shown["data_xz"].shape[0]]
    axes = figure.subplots(2, 3, height_ratios=heights)
    for line, plane in zip(axes, ("xy", "xz"), strict=True):
        grey = shown[f"data_{plane}"]
        low, high = np.percentile(grey, (1, 99))
        for one, name in zip(line, ("data", "truth", "found"), strict=True):
            one.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            if name != "data":
                one.imshow(_coloured(shown[f"{name}_{plane}"]), interpolation="nearest")
            one.set(xticks=[], yticks=[])
    for one, name in zip(axes[0], ("tomogram, 5 sections", "truth", "found"), strict=True):
        one.set_title(name, fontsize=10)
    for name, colour in zip(GROUPS, COLOURS, strict=True):
        axes[1][0].plot([], [], "s", color=colour, label=name)
    figure.legend(loc="outside lower center", ncols=len(GROUPS), frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=90)


def _coloured(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Red, green, blue and opacity of labels (y, x)."""
    table = np.zeros((256, 4), np.float32)
    for value, colour in enumerate(COLOURS, 1):
        table[value] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [0.55]
    found: npt.NDArray[np.float32] = table[labels]
    return found


def markdown(rows: Sequence[Row]) -> str:
    """All tables, and what targets are met."""
    parts = [SAID, "\n## Groups of sub-volumes\n", groups_table(rows), "\n## Picks at half a radius\n"]
    parts += [particles_table(rows), "\n## Voxels: Dice\n", voxels_table(rows)]
    parts += ["\n## Where it is lost\n", losses_table(rows), "\n## Targets\n"]
    return "\n".join(parts) + "\n" + "\n".join(f"- {line}" for line in verdicts(rows)) + "\n"


def groups_table(rows: Sequence[Row]) -> str:
    """Homogeneity, completeness, Rand index; recall and precision of surfaces and globules among picks."""
    heads = ["row", "picks", "homogeneity", "completeness", "Rand", "surface recall", "surface precision"]
    heads += ["surface voxels in boxes", "globule recall", "globule precision"]
    lines = []
    for row in rows:
        values = [_told(row, name) for name in ("homogeneity", "completeness", "rand")]
        for group in SHOWN:
            values += [_told(row, "groups", group, kind) for kind in ("recall", "precision")]
        values.insert(5, _told(row, "surface_voxels"))
        lines.append([row["row"], f"{np.mean([t['picks'] for t in row['tomograms']]):.0f}", *values])
    return _table(heads, lines)


def particles_table(rows: Sequence[Row]) -> str:
    """Recall and precision at half a radius, of ribosome-like picks and of picks marked as globules."""
    heads = ["row"]
    for what in ("ribosomes", "globules"):
        heads += [what, f"{what} picked at all", "recall", "precision"]
    lines = []
    for row in rows:
        cells = [row["row"]]
        for what in ("ribosomes", "particles"):
            cells.append(str(sum(one[what]["of"] for one in row["tomograms"])))
            cells += [_told(row, what, kind) for kind in ("picked", "recall", "precision")]
        lines.append(cells)
    return _table(heads, lines)


def voxels_table(rows: Sequence[Row]) -> str:
    """Dice of each group over what tilts show, of membranes over all, and with labels about kept picks only."""
    names = tuple(GROUPS)
    heads = ["row", *(f"{name}, shown" for name in names), "membrane, all", *(f"{n}, about picks" for n in SHOWN)]
    lines = []
    for row in rows:
        places = [("shown", name) for name in names] + [("all", "membrane")] + [("kept", name) for name in SHOWN]
        lines.append([row["row"], *(_told(row, "voxels", way, name, "dice") for way, name in places)])
    return _table(heads, lines)


def losses_table(rows: Sequence[Row]) -> str:
    """Weak labels against truth on the marking tomograms; precision and recall of the segmentation's voxels."""
    heads = ["row", "clusters", "marked"]
    heads += [f"{name}: {what}" for name in SHOWN for what in ("labels' Dice", "precision", "recall", "found")]
    heads += ["ribosomes' voxels", "other globules'", "taken for others"]
    lines = []
    for row in rows:
        cells = [row["row"], str(row["clusters"]), ", ".join(f"{k} {v}" for k, v in row["marked"].items() if v)]
        for name in SHOWN:
            cells.append(_plain(row["weak_labels"][name]["dice"]))
            cells += [_plain(row["weak_labels"][name][kind]) for kind in ("precision", "recall")]
            both = [_mean(row, "voxels", "shown", name, kind) for kind in ("precision", "recall")]
            cells.append(" / ".join(_plain(value) for value in both))
        places = (("ribosome", "found"), ("globule", "found"), ("globule", "other"))
        cells += [_plain(_mean(row, "voxels", "classes", name, kind)) for name, kind in places]
        lines.append(cells)
    return f"{_table(heads, lines)}\n\n{SAID_OF_LOSSES}\n"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the project asks for, and whether these rows show it, a sentence each."""
    said = []
    for row in rows:
        for name, target in TARGETS.items():
            value = _mean(row, "voxels", "shown", name, "dice")
            if value is None:
                continue
            word = "reached" if value >= target else "not reached"
            said.append(f"{row['row']}: Dice of {name} {_plain(value)}, target {target:g}: {word}")
    by_options = {_key(row, posed=row["options"]["posed"]): row for row in rows}
    for row in rows:
        other = by_options.get(_key(row, posed=True))
        if row["options"]["posed"] or other is None:
            continue
        before, after = (_mean(r, "groups", "membrane", "recall") for r in (row, other))
        if before is not None and after is not None:
            word = "raises" if after > before else "does not raise"
            said.append(f"{row['row']}: pose normalisation {word} recall of surfaces, {before:.3f} to {after:.3f}")
    return said


def _key(row: Row, *, posed: bool) -> str:
    return repr(sorted((name, value) for name, value in {**row["options"], "posed": posed}.items()))


def _values(row: Row, *path: str) -> list[float]:
    """A number of each test tomogram, by the names it is under; those that have none are left out."""
    found = []
    for one in row["tomograms"]:
        value: Any = one
        for name in path:
            value = None if value is None else value.get(name)
        if value is not None:
            found.append(float(value))
    return found


def _mean(row: Row, *path: str) -> float | None:
    values = _values(row, *path)
    return float(np.mean(values)) if values else None


def _told(row: Row, *path: str) -> str:
    """The mean and its interval; a tomogram without such a thing does not count."""
    values = _values(row, *path)
    return str(mean_interval(np.array(values))) if values else "-"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "| "
        + " | ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in (heads, *rows)
    ]
    rule = "|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
