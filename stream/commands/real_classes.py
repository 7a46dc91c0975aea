"""Real particles at centres that somebody marked, in 2-D classes: a picture, for want of labels to score against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from ..flow.settings import ConfigError
from .bars import bars
from .labelled import Reading, read_labelled
from .pick import find
from .run import write_json

if TYPE_CHECKING:
    from ...models.classes2d.working import Floats

BOX = 1.5
"""Edge of the box in particle diameters."""
SHOWN = 12


def show_real(
    out: Path, folder: Path, bundle: str, diameter_a: float | None, pixel_a: float | None, number: int, seed: int
) -> None:
    """``classified`` with progress, its result in real.json and in a line."""
    from ...models.progress import Lines

    if diameter_a is None:
        raise ConfigError(["--real: needs --diameter, the particle's in ångström"])
    with bars() as shown:
        told = shown or Lines()
        found = classified(
            out,
            folder,
            pixel_a=pixel_a,
            diameter_a=diameter_a,
            bundle=bundle,
            number=number,
            seed=seed,
            progress=told,
        )
    write_json(out / "real.json", found)
    sizes = ", ".join(map(str, found["counts"]))
    typer.echo(f"{found['particles']} particles in classes of {sizes}; {out / 'real-classes.png'}")


def classified(
    out: Path,
    folder: Path,
    *,
    pixel_a: float | None,
    diameter_a: float,
    bundle: str,
    number: int,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Cut out, denoise and group all particles of ``folder``'s micrographs; give what came of it, as plain values.

    Writes real-classes.png, averages of the originals, and real-particles.png, some particles before and after
    denoising. Raises ``ConfigError`` for micrographs without centres, ``BundleError``, ``OSError``.
    """
    from ...models.bundle import load_bundle
    from ...models.classes2d.classify import classify
    from ...models.classes2d.denoise import Denoiser
    from ...models.classes2d.montage import montage
    from ...models.classes2d.study_report import draw_panel

    denoiser = Denoiser(load_bundle(bundle), device="cpu")
    images, edge_a = _particles(folder, pixel_a, diameter_a)
    working_a = edge_a / images.shape[-1]
    found = classify(images, denoiser, number=number, seed=seed, progress=progress, pixel_a=working_a)
    labels = [f"{i}: {a:.0f} Å" if np.isfinite(a) else f"{i}" for i, a in enumerate(found.resolution_a, 1)]
    title = f"{len(images)} particles of {folder.name}, averages of the originals"
    (out / "real-classes.png").write_bytes(montage(found.averages, found.counts, labels, title=title))
    some = images[:: max(1, len(images) // SHOWN)][:SHOWN]
    draw_panel(out / "real-particles.png", {"raw": some, denoiser.name: denoiser(some)}, folder.name)
    return {
        "folder": folder.name,
        "particles": len(images),
        "denoiser": {"name": denoiser.name, "sha256": denoiser.sha256},
        "counts": found.counts.tolist(),
        "resolution_a": [float(a) if np.isfinite(a) else None for a in found.resolution_a],
        "pixel_a": working_a,
        "notes": list(found.notes),
    }


def _particles(folder: Path, pixel_a: float | None, diameter_a: float) -> tuple[Floats, float]:
    """Working images of all particles whose box lies inside their micrograph, and the box's edge in ångström."""
    from ...models.classes2d.working import EDGE, working
    from ...models.particles.extract import extract

    parts, edges = [], set()
    # Folders within are other pictures of the same particles.
    files = [path for path in find((folder,)) if path.parent == folder]
    for one in read_labelled(files, Reading(pixel_a=pixel_a)):
        box = 2 * round(BOX * diameter_a / one.pixel_a / 2)
        edges.add(box * one.pixel_a)
        if box < EDGE:
            raise ConfigError(
                [f"--diameter {diameter_a:g}: boxes of {box} pixels are below {EDGE}; is it in ångström?"]
            )
        width = diameter_a / one.pixel_a
        how = {"box_px": box, "size": EDGE, "diameter_px": width, "invert": True, "ramp": True, "edges": "drop"}
        parts.append(extract(one.load(), one.x, one.y, **how))  # type: ignore[arg-type]
    if not parts or len(edges) > 1:
        raise ConfigError([f"--real {folder}: {len(parts)} micrographs, boxes of {sorted(edges)} Å; all must be alike"])
    images, good = working(np.concatenate(parts))
    return images[good], edges.pop()
