"""What ``beamsieve classify2d`` does between its options and its summary: read, denoise, group, write."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
import numpy.typing as npt

from ...models.bundle import bundle_at, load_bundle
from ...models.classes2d.classify import Classified, classify
from ...models.classes2d.compared import compared
from ...models.classes2d.denoise import Denoiser
from ...models.classes2d.polar import features
from ...models.classes2d.working import EDGE, working
from ...models.progress import Lines
from ..formats.relion import Optics
from ..sinks.picks.files import whole
from .classify2d_files import Labelled2d, Model, write
from .particle_stacks import Stacks
from .stack_files import StackError

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]

CHUNK = 512
#: Of a working image: what lies inside is the particle, what lies outside is not, in pixels from the middle. The inner
#: disc is as large as most particles, because hollow ones (apoferritin) are dark in the very middle.
_INNER_PX, _OUTER_PX = 20, 28
#: A share of images that chance does not make.
_MOST = 0.65
_FREE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options. ``optics``: what RELION's optics table shall say where the sources do not."""

    out: Path
    number: int
    bundle: str
    method: Literal["kmeans", "ward"]
    align: bool
    invert: bool
    denoised: bool
    float16: bool
    seed: int
    device: str
    threads: int | None
    project: Path | None
    optics: Optics


@dataclass(frozen=True, slots=True)
class Done:
    """``summary``: plain values. ``unit``: of its resolutions. ``notes``: what people should know."""

    summary: dict[str, Any]
    unit: str
    notes: tuple[str, ...]


def run(found: Stacks, options: Options, progress: Progress | None = None) -> Done:
    """Classify all particles and write everything but the summary.

    Raises ``BundleError``, ``StackError`` for a source that changed meanwhile, ``ValueError`` where no particle can be
    used, ``OSError`` where a file cannot be written (then there is nothing half written).
    """
    told = progress or Lines()
    denoiser = _denoiser(options)
    notes: list[str] = []
    _check_room(found.count, options)
    began = time.monotonic()
    with _store(found.count, options.out) as images, ExitStack() as stack:
        good, black = _read(found, images, options.invert, told)
        notes += _remarks(found, good, black, options.invert)
        keep = _keeping(stack, found, options) if options.denoised else None
        try:
            made = classify(
                images,
                denoiser,
                number=options.number,
                seed=options.seed,
                progress=told,
                align=options.align,
                method=options.method,
                pixel_a=found.working_a or 1.0,
                keep=keep,
            )
        except ValueError as error:
            raise StackError(f"{found.parts[0].path}: {error}") from None
    seconds = time.monotonic() - began
    notes += made.notes
    averages = working(made.averages)[0]
    centres = features(compared(averages, denoiser(averages))).spectra
    card = denoiser.bundle.card
    model = Model(card.name, card.sha256, str(denoiser.bundle.path))
    written = write(Labelled2d(found, made, centres, model), options.out, options.project, options.optics)
    notes += written.notes
    report = denoiser.warm_up()
    return Done(_summary(found, made, options, model, report, seconds), "Å" if found.working_a else "px", tuple(notes))


def _denoiser(options: Options) -> Denoiser:
    bundle = load_bundle(bundle_at(options.bundle, Path.cwd()))
    denoiser = Denoiser(bundle, device=options.device, threads=options.threads)
    denoiser.warm_up()
    return denoiser


def _check_room(count: int, options: Options) -> None:
    """Refuse now what would fail for want of disk after an hour."""
    one = EDGE * EDGE * 4
    need = count * one * (1 + (options.denoised and (0.5 if options.float16 else 1.0))) + _FREE_BYTES
    free = shutil.disk_usage(options.out).free
    if free < need:
        raise ValueError(
            f"--out {options.out}: {free / 1e9:.1f} GB are free, {count} particles need {need / 1e9:.1f} GB; "
            "name a folder on another disk, or add --no-denoised"
        )


@contextmanager
def _store(count: int, out: Path) -> Iterator[Floats]:
    """Room for working images in a file without a name: gone whatever ends this process, and no burden on memory."""
    with tempfile.TemporaryFile(dir=out) as file:
        file.truncate(count * EDGE * EDGE * 4)
        yield np.memmap(file, np.float32, "r+", shape=(count, EDGE, EDGE))


def _read(found: Stacks, images: Floats, invert: bool, told: Progress) -> tuple[npt.NDArray[np.bool_], float]:
    """Fill ``images``; which are good, and the share of those that are darker in the middle than at the rim."""
    good = np.zeros(len(images), np.bool_)
    black, done = 0, 0
    for _, particles in found.chunks(CHUNK):
        some = slice(done, done + len(particles))
        made, good[some] = working(-particles if invert else particles)
        images[some] = made
        black += int(darker(made)[good[some]].sum())
        done += len(particles)
        told("read", done, len(images))
    return good, black / max(1, int(good.sum()))


def darker(images: Floats) -> npt.NDArray[np.bool_]:
    """Which working images (n, 64, 64) are darker where the particle is than at the rim."""
    away = np.hypot(*(np.mgrid[:EDGE, :EDGE] - EDGE // 2))
    found: npt.NDArray[np.bool_] = images[:, away < _INNER_PX].mean(1) < images[:, away > _OUTER_PX].mean(1)
    return found


def _remarks(found: Stacks, good: npt.NDArray[np.bool_], black: float, invert: bool) -> Iterator[str]:
    """Which images are left out, by file, and whether particles look black."""
    first = 0
    for part in found.parts:
        bad = np.flatnonzero(~good[first : first + part.count]) + 1
        first += part.count
        if len(bad):
            named = ", ".join(map(str, bad[:5])) + (" …" if len(bad) > 5 else "")
            yield (
                f"{part.path}: {len(bad)} of {part.count} images are constant, or hold NaN or infinity ({named}); "
                "they get class 0"
            )
    if black > _MOST:
        remedy = "leave out --invert" if invert else "if particles are black, add --invert"
        yield f"{100 * black:.0f} % of the particles are darker in the middle than at the rim; {remedy}"


def _keeping(stack: ExitStack, found: Stacks, options: Options) -> Callable[[int, Floats], None]:
    """Writes denoised images as they come; the file gets its name when ``stack`` ends well."""
    path = stack.enter_context(whole(options.out / "denoised.mrcs"))
    shape = (found.count, EDGE, EDGE)
    file = stack.enter_context(mrcfile.new_mmap(path, shape, mrc_mode=12 if options.float16 else 2, overwrite=True))
    file.set_image_stack()
    file.voxel_size = found.working_a or 0.0
    # mrcfile would take the statistics of the whole array at once, and as much memory again.
    low, high, sums, squares = [np.inf], [-np.inf], [0.0], [0.0]

    def keep(first: int, denoised: Floats) -> None:
        file.data[first : first + len(denoised)] = denoised
        low.append(float(denoised.min()))
        high.append(float(denoised.max()))
        sums.append(float(denoised.sum(dtype=np.float64)))
        squares.append(float(np.square(denoised, dtype=np.float64).sum()))

    def finish() -> None:
        mean = sum(sums) / file.data.size
        header = file.header
        header.dmin, header.dmax, header.dmean = min(low), max(high), mean
        header.rms = max(0.0, sum(squares) / file.data.size - mean**2) ** 0.5

    stack.callback(finish)
    return keep


def _summary(
    found: Stacks, made: Classified, options: Options, model: Model, device: str, seconds: float
) -> dict[str, Any]:
    resolutions = [float(r) if np.isfinite(r) else None for r in made.resolution_a.tolist()]
    total = max(1, int(made.counts.sum()))
    classes = [
        {
            "class": at,
            "particles": int(count),
            "share": int(count) / total,
            "resolution": resolution,
            "spread": float(spread),
        }
        for at, (count, resolution, spread) in enumerate(
            zip(made.counts.tolist(), resolutions, made.spread.tolist(), strict=True), 1
        )
    ]
    return {
        "sources": [str(part.path) for part in found.parts],
        "particles": found.count,
        "classified": int((made.labels > 0).sum()),
        "model": model.name,
        "sha256": model.sha256,
        "device": device,
        "method": options.method,
        "align": options.align,
        "invert": options.invert,
        "seed": options.seed,
        "pixel_a": found.pixel_a,
        "working_pixel_a": found.working_a,
        "resolution_unit": "angstrom" if found.working_a else "pixels",
        "seconds": seconds,
        "per_second": found.count / seconds,
        "classes": classes,
        "directory": str(options.out),
    }
