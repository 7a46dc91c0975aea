"""Tables and pictures of a study: what ``Study.run`` found, in Markdown and as panels of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from ..particles.report import stretched
from .study_methods import Row

UNTUNED = ", not tuned"
_GAP = 3
_SINGLE = ("DAE", "DAE, not tuned", "DAE on means")
SAID_OF_PSNR = (
    "PSNR in dB of what each method makes of the noisy image, against the image without noise; its mean over images "
    "with the 95 % bootstrap interval over images. By protein: after the gain and offset that fit the truth best, "
    "peak = range of the truth. 'scaled': both images scaled to 0..1 by their own extremes. 'equalised': after "
    "histogram equalisation of the method's image, compared with the truth as it is. Filters have the noise's true "
    "variance, and parameters chosen on the validation maps."
)
SAID_OF_CLUSTERS = (
    "Clusters against orientations after the best one-to-one matching: mean F1 over orientations with its 95 % "
    "bootstrap interval over images (of this clustering: not of other starts); precision, recall, adjusted Rand index, "
    "homogeneity, purity as means over the proteins."
)
SAID_OF_NAMES = (
    "DAE: a single block of the cascade, pre-trained on the same protein from noisy to clean; like the cascade it is "
    "shown without and with fine-tuning on the test images (without their truth). 'DAE on means': that of the paper's "
    "clustering table, trained on the test images alone, with means of 30 raw neighbours as targets. CDAE is "
    "fine-tuned as published, to means of its own outputs; 'raw means': block by block to means of raw neighbours, as "
    "`finetune classes2d` and the daemon do it. CAE: plain autoencoder, its innermost values clustered."
)


def markdown(title: str, found: Row) -> str:
    """Both tables of one study, with what was asked for and whether it was reached."""
    o = found["options"]
    how = [
        f"{o['orientations']} orientations × {o['images']} images, SNR {o['snr']:g}, seed {o['seed']}",
        *(["transfer function with 1 to 2.5 µm defocus"] if o["ctf"] else []),
        *(["random turns in the plane"] if o["in_plane"] else []),
        f"fine-tuned on {min(o['tune_on'], o['images'] * o['orientations'])} of the images, {o['tune_epochs']} epochs",
        f"PSNR on {min(o['scored'], o['images'] * o['orientations'])}",
        f"single autoencoder trained on {found['trained_on']}, {o['epochs']} epochs",
        f"filters chosen on {', '.join(found['validated_on'])}",
    ]
    parts = [f"## {title}", "; ".join(how) + ".", psnr_table(found), cluster_table(found)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in verdicts(found))]) + "\n"


def psnr_table(found: Row) -> str:
    """Rows: methods. Columns: proteins, their mean, the other ways to scale, seconds."""
    proteins = found["proteins"]
    names = [p["protein"] for p in proteins]
    rows = []
    for method in proteins[0]["psnr"]:
        each = [p["psnr"][method] for p in proteins]
        others = [f"{_mean(each, kind):.2f}" for kind in ("scaled", "fit_equalised", "scaled_equalised")]
        cost = 1e3 * mean(e["seconds"] for e in each)
        value = [f"{_mean(each, 'fit'):.2f}"]
        rows.append([method, *(_interval(e["fit"], 2) for e in each), *value, *others, f"{cost:.2f}"])
    heads = ["PSNR, dB", *names, "mean", "scaled", "equalised", "scaled, equalised", "ms per image"]
    return _table(heads, rows)


def cluster_table(found: Row) -> str:
    """Rows: ways to cluster. Columns: F1 by protein, means of all scores."""
    proteins = found["proteins"]
    rows = []
    for way in proteins[0]["clusters"]:
        each = [p["clusters"][way] for p in proteins]
        means = [_mean(each, kind) for kind in ("f1", "precision", "recall", "rand", "homogeneity", "purity")]
        rows.append([way, *(_interval(e["f1"], 3) for e in each), *(f"{value:.3f}" for value in means)])
    heads = ["clusters", *(f"F1 {p['protein']}" for p in proteins)]
    return _table([*heads, "mean F1", "precision", "recall", "Rand", "homogeneity", "purity"], rows)


def verdicts(found: Row) -> list[str]:
    """What the project asks of the cascade, and whether this study shows it, a sentence each."""
    proteins, said = found["proteins"], []
    ratios = {m: _mean([p["psnr"][m] for p in proteins], "fit") for m in proteins[0]["psnr"]}
    own = [m for m in ratios if _of(m, found["cascades"])]
    for cascade in [m for m in own if not m.endswith(UNTUNED)]:
        best = max((m for m in ratios if m not in own), key=lambda m: ratios[m])
        said.append(
            f"{cascade}: mean PSNR {ratios[cascade]:.2f} dB, the best of the others is {best} with {ratios[best]:.2f}: "
            + ("reached" if ratios[cascade] > ratios[best] else "not reached")
        )
        behind = [p["protein"] for p in proteins if _fit(p, cascade) <= max(_fit(p, m) for m in _SINGLE if m in ratios)]
        said.append(f"{cascade}: better than the single autoencoder on " + (_each(proteins, behind)))
        said.append(_of_clusters(cascade, found))
    perfect = [w for w in proteins[0]["clusters"] if all(p["clusters"][w]["f1"]["value"] > 0.999 for p in proteins)]
    if len(perfect) > 1:
        said.append(f"without an error on all proteins, so that this table does not part them: {', '.join(perfect)}")
    return said


def _fit(protein: Row, method: str) -> float:
    return float(protein["psnr"][method]["fit"]["value"])


def _each(proteins: Sequence[Row], behind: Sequence[str]) -> str:
    if not behind:
        return "each protein: reached"
    return f"{len(proteins) - len(behind)} of {len(proteins)} proteins (not on {', '.join(behind)}): not reached"


def _of_clusters(cascade: str, found: Row) -> str:
    """Whether the cascade's k-means or Ward's is at least as good as all other ways, protein by protein."""
    told = []
    for p in found["proteins"]:
        f1 = {way: scores["f1"]["value"] for way, scores in p["clusters"].items()}
        own = max(f1[f"{cascade} + {how}"] for how in ("k-means", "Ward"))
        way = max((w for w in f1 if not _of(w, found["cascades"])), key=lambda w: f1[w])
        sign = "above" if own > f1[way] else "equal to" if own == f1[way] else "below"
        told.append(f"{p['protein']} {own:.3f}, {sign} {way} {f1[way]:.3f}")
    return f"{cascade}: clusters' F1, the better of k-means and Ward: " + "; ".join(told)


def _of(name: str, cascades: Mapping[str, Any]) -> bool:
    """Whether a method or a way to cluster is one of the cascades'."""
    return name.partition(" + ")[0].partition(",")[0] in cascades


def _mean(each: Sequence[Mapping[str, Any]], kind: str) -> float:
    return float(mean(one[kind]["value"] for one in each))


def _interval(one: Mapping[str, float], digits: int) -> str:
    return f"{one['value']:.{digits}f} [{one['low']:.{digits}f}, {one['high']:.{digits}f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, so that it can be read on a terminal, too."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (heads, *rows)
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def draw_panel(path: Path, shown: Mapping[str, npt.NDArray[Any]], title: str) -> None:
    """A row of images for each method, each image between its 1st and 99th percentile. Raises ``OSError``.

    ``shown``: by method (m, s, s), as many of each. The truth and the noisy images come first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = [name for name in ("truth", "raw") if name in shown]
    order += [name for name in shown if name not in order]
    edge = shown[order[0]].shape[-1] + _GAP
    # One picture of all: an axis for each would take a hundred times as long.
    rows = [[np.pad(stretched(image), (0, _GAP), constant_values=1) for image in shown[name]] for name in order]
    whole = np.block(rows)
    height, width = whole.shape
    figure = Figure(figsize=(2.4 + width / 72, 0.5 + height / 72), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(whole, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    names = ["noisy" if name == "raw" else name for name in order]
    axes.set(xticks=[], yticks=[edge * (i + 0.5) for i in range(len(order))], yticklabels=names)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)
    axes.set_frame_on(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
