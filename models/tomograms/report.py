"""What a training leaves behind: the bundle with its card, the scores, the pictures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import load_bundle
from .bundles import codec_network, save_codec
from .nets import Autoencoder3D
from .practice import Sample
from .recipes import Options
from .scoring import scores
from .swift import PIECE
from .volume import Floats

REPORT = "report.json"
"""Error on what is held back, before and after a training that went on from a bundle, and its name."""
_SHOWN = 12


def finish(
    net: Autoencoder3D,
    options: Options,
    sample: Sample,
    held: npt.NDArray[np.intp],
    history: Sequence[Mapping[str, Any]],
    check: Sample | None = None,
) -> Path:
    """Write ``<name>.pt``, ``<name>.json``, ``scores.json`` and pictures to ``options.out``; path of the ``.pt``."""
    found = {"validation": scores(net, sample, held)}
    if options.start:
        found["before"] = scores(codec_network(load_bundle(options.start)).eval(), sample, held)
    if check is not None:
        found["check"] = scores(net, check, np.arange(len(check)), marked=sample)
    (options.out / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    by = options.command or f"beamsieve train tomograms --recipe {options.recipe} --seed {options.seed}"
    path = save_codec(
        options.out,
        options.name,
        net,
        posed=options.posed,
        voxel_a=options.voxel_a,
        training=_told(options, sample, history),
        scores=found,
        trained_by=by,
    )
    if options.start:
        told = {"before": found["before"]["error"], "after": found["validation"]["error"], "path": path.name}
        (options.out / REPORT).write_text(json.dumps(told) + "\n")
    draw_curves(options.out / "curves.png", history)
    shown = check if check is not None else sample
    rows = np.arange(len(check)) if check is not None else held
    draw_examples(options.out / "examples.png", net, shown, rows[np.linspace(0, len(rows) - 1, _SHOWN).astype(int)])
    return path


def _told(options: Options, sample: Sample, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the card says of the training."""
    best = [number for number, row in enumerate(history) if row["best"]][-1]
    return {
        **options.identity(),
        "start": Path(options.start).name,
        "source": sample.source,
        "sub_volumes": len(sample),
        "tomograms": len(np.unique(sample.group)),
        "epochs_done": len(history),
        "best_epoch": best + 1,
        "best_validation_loss": round(history[best]["validation"], 5),
        "code_in_use": round(history[best]["alive"], 4),
        "minutes": round(sum(row["seconds"] for row in history) / 60, 2),
        "method": "Zeng et al., Journal of Structural Biology 202 (2018), sections 2.2 and 3.2; layers as published",
        "optimiser": "Adam, mean squared error, L1 penalty on the code",
    }


def _figure(width: float, height: float) -> Any:
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def draw_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Losses, and the share of the code in use, against epochs. Raises ``OSError``."""
    figure = _figure(9, 4)
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    for name in ("loss", "validation"):
        left.plot(epochs, [row[name] for row in history], ".-", label={"loss": "training"}.get(name, name))
    best = [number for number, row in enumerate(history) if row["best"]][-1]
    left.plot(epochs[best], history[best]["validation"], "o", mfc="none", label="kept")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(fontsize=8)
    right.plot(epochs, [100 * row["alive"] for row in history], ".-")
    right.set(xlabel="epoch", ylabel="numbers of the code in use (%)", ylim=(0, 105))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_examples(path: Path, net: Autoencoder3D, sample: Sample, rows: npt.NDArray[np.intp]) -> None:
    """Middle slices (x-y, x-z) of some sub-volumes, what is made of them, and without noise. Raises ``OSError``."""
    boxes = np.asarray(sample.boxes[rows], np.float32)
    shown = {"input": boxes, "reconstruction": reconstructed(net, boxes)}
    if sample.clean is not None:
        shown["without noise"] = np.asarray(sample.clean[rows], np.float32)
    half = sample.edge // 2
    lines = [
        (f"{name}, {axes}", pictures)
        for name, all_ in shown.items()
        for axes, pictures in (("x-y", all_[:, half]), ("x-z", all_[:, :, half]))
    ]
    figure = _figure(0.9 * len(rows) + 1.2, 0.95 * len(lines) + 0.3)
    axes = figure.subplots()
    axes.imshow(np.concatenate([np.concatenate(_grey(one), axis=1) for _, one in lines]), cmap="gray", vmin=0, vmax=1)
    axes.set_yticks([sample.edge * (i + 0.5) for i in range(len(lines))], [name for name, _ in lines], fontsize=8)
    axes.set_xticks([])
    figure.savefig(path, dpi=110)


@torch.no_grad()
def reconstructed(net: Autoencoder3D, boxes: Floats) -> Floats:
    """Reconstructions float32 of boxes (n, e, e, e)."""
    given = torch.from_numpy(boxes)[:, None]
    return np.concatenate([net(given[at : at + PIECE])[:, 0].numpy() for at in range(0, len(given), PIECE)])


def _grey(images: Floats) -> Floats:
    """Images (n, e, e) as grey values 0..1, each between its own 1st and 99th percentile."""
    low, high = (np.percentile(images, q, axis=(1, 2), keepdims=True) for q in (1, 99))
    found: Floats = np.clip((images - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)
    return found
