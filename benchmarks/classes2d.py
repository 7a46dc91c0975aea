"""2-D classes: denoise and assign beside the bare forward pass and the naive way; memory of a long session.

One particle's way is that of a session's worker: to a working image, denoised, its rotational spectrum, the class it is
most like, and the centre moved. The bare forward pass is the bundle's module on ready images in the same process, at
the batch and the number of torch threads that are fastest here. The naive way is one particle at a time through the
same steps, with the module as it was loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle
from beamsieve.models.classes2d.averages import Averages
from beamsieve.models.classes2d.bundles import write
from beamsieve.models.classes2d.cdae import Cdae
from beamsieve.models.classes2d.compared import compared
from beamsieve.models.classes2d.denoise import Denoiser
from beamsieve.models.classes2d.online import OnlineClasses
from beamsieve.models.classes2d.polar import features
from beamsieve.models.classes2d.simulator import particles
from beamsieve.models.classes2d.working import EDGE, working
from beamsieve.models.particles.maps import load_map

from .picking import best, memory_mb
from .report import Report, Target

COLUMNS = {
    "what": "s", "particles": ",d", "particles /s": ",.0f", "working ms": ".3f", "denoise ms": ".3f",
    "features ms": ".3f", "assign ms": ".3f", "average ms": ".3f", "bare /s": ",.0f", "of bare": ".2f",
    "naive /s": ",.0f", "× naive": ".1f", "start MB": ",.0f", "half MB": ",.0f", "end MB": ",.0f", "growth MB": ",.1f",
}  # fmt: skip
PER_SECOND, GROWTH_MB = 1000.0, 1000.0
CLASSES = 32
AT_ONCE = 256
"""Particles that a worker takes at a time: about those of a micrograph."""
SESSION = 200_000


def measure(folder: Path, *, denoiser: str, device: str, threads: int, quick: bool) -> Report:
    """All rows. ``denoiser``: name or path of the bundle; where there is none of that name, random weights."""
    report = Report("classes2d", f"Denoise, compare, assign, {device}, {threads} threads", COLUMNS)
    bundle = _bundle(folder, denoiser, report)
    run = Denoiser(bundle, device=device, threads=threads)
    report.notes.append(f"{bundle.card.name}: {run.warm_up()}")
    bare, how = _bare(bundle, device, threads, quick)
    report.notes.append(f"bare forward pass, the module as it was loaded: {how}")
    for edge in (64, 128):
        report.rows.append(_row(edge, bundle, run, bare, threads, quick))
        report.targets.append(
            Target(
                f"{edge}² particles denoised and assigned", PER_SECOND, report.rows[-1]["particles /s"], "per second"
            )
        )
    report.rows.append(_session(run, quick))
    report.targets.append(
        Target("memory that a session adds", GROWTH_MB, report.rows[-1]["growth MB"], "MB", at_least=False)
    )
    return report


def _row(edge: int, bundle: Bundle, run: Denoiser, bare: float, threads: int, quick: bool) -> dict[str, object]:
    n = 2 * AT_ONCE if quick else 8 * AT_ONCE
    boxes = _boxes(edge, AT_ONCE)
    classes = OnlineClasses(CLASSES, per_class=4)
    classes.start(_spectra(boxes, run))
    parts = _parts(boxes, run, classes)
    times = {name: best(call, 3 if quick else 10) for name, call in parts.items()}

    def whole() -> None:
        for _ in range(n // AT_ONCE):
            _way(boxes, run, classes)

    rate = n / best(whole, 2 if quick else 3)
    naive = _naive(boxes[: 16 if quick else 64], bundle, classes, threads)
    return {
        "what": f"{edge}² boxes, {len(classes.ids)} classes",
        "particles": n,
        "particles /s": rate,
        **{f"{name} ms": 1e3 * seconds / AT_ONCE for name, seconds in times.items()},
        "bare /s": bare,
        "of bare": rate / bare,
        "naive /s": naive,
        "× naive": rate / naive,
    }


def _way(boxes: np.ndarray, run: Callable[[np.ndarray], np.ndarray], classes: OnlineClasses) -> None:
    """One batch of particles, as a session's worker takes it."""
    spectra = _spectra(boxes, run)
    classes.learn(spectra, classes.assign(spectra))


def _spectra(boxes: np.ndarray, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    images = working(boxes)[0]
    return features(compared(images, run(images))).spectra


def _parts(boxes: np.ndarray, run: Denoiser, classes: OnlineClasses) -> dict[str, Callable[[], object]]:
    """Each step by itself, and the average of originals, which is not part of the target."""
    images = working(boxes)[0]
    denoised = run(images)
    found = features(compared(images, denoised))
    assigned = classes.assign(found.spectra)
    averages = Averages()
    return {
        "working": lambda: working(boxes),
        "denoise": lambda: run(images),
        "features": lambda: features(compared(images, denoised)),
        "assign": lambda: classes.learn(found.spectra, classes.assign(found.spectra)),
        "average": lambda: averages.add(assigned.id, images, assigned.angle, found.shift, assigned.similarity),
    }


def _naive(boxes: np.ndarray, bundle: Bundle, classes: OnlineClasses, threads: int) -> float:
    """Particles per second one at a time, at the number of torch threads that is faster."""

    def eager(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(bundle.module(torch.from_numpy(images)[:, None])[:, 0])

    def one_by_one() -> None:
        for box in boxes:
            _way(box[None], eager, classes)

    return max(len(boxes) / _with_threads(n, one_by_one, 2) for n in sorted({1, threads}))


def _bare(bundle: Bundle, device: str, threads: int, quick: bool) -> tuple[float, str]:
    """Images per second of the module alone, at the batch and threads that are fastest; and which those are."""
    module = bundle.module.to(device)
    found = {}
    for batch, n in itertools.product((16, 64) if quick else (4, 16, 64, 256), sorted({1, threads})):
        images = torch.zeros((batch, 1, EDGE, EDGE), device=device)

        def forward(images: torch.Tensor = images) -> None:
            with torch.inference_mode():
                module(images).cpu()

        found[batch, n] = batch / _with_threads(n, forward, 2 if quick else 6)
    module.to("cpu")
    batch, n = max(found, key=lambda key: found[key])
    said = ", ".join(f"{b} images on {t} threads {rate:,.0f} per second" for (b, t), rate in found.items())
    return found[batch, n], said


def _with_threads(threads: int, call: Callable[[], object], times: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return best(call, times)
    finally:
        torch.set_num_threads(before)


def _session(run: Denoiser, quick: bool) -> dict[str, object]:
    """Memory while many particles are assigned, learnt and averaged; the same 2048, denoised once, come again."""
    many = SESSION // 10 if quick else SESSION
    images = working(_boxes(EDGE, 8 * AT_ONCE))[0]
    found = features(compared(images, run(images)))
    resident = [memory_mb("VmRSS")]
    classes, averages = OnlineClasses(CLASSES), Averages()
    classes.start(found.spectra)
    for first in range(0, many, AT_ONCE):
        some = slice(first % len(images), first % len(images) + AT_ONCE)
        assigned = classes.assign(found.spectra[some])
        classes.learn(found.spectra[some], assigned)
        averages.add(assigned.id, images[some], assigned.angle, found.shift[some], assigned.similarity)
        resident.append(memory_mb("VmRSS"))
    return {
        "what": f"a session, {len(classes.ids)} classes",
        "particles": many,
        "start MB": resident[0],
        "half MB": resident[len(resident) // 2],
        "end MB": resident[-1],
        "growth MB": max(resident) - resident[0],
    }


def _boxes(edge: int, n: int) -> np.ndarray:
    """Particles in many orientations, float32 (n, edge, edge)."""
    volume = load_map("hemocyanin")
    return particles(volume, n, seed=1, snr=0.1, pixel_a=1.5 * volume.diameter_a / edge, edge=edge).images


def _bundle(folder: Path, name: str, report: Report) -> Bundle:
    try:
        return load_bundle(name).expect(task="classes2d")
    except BundleError as error:
        if error.reason != "unknown":
            raise
    report.notes.append(f"no bundle named {name}: random weights instead, which take as long")
    torch.manual_seed(0)
    return load_bundle(write(folder, "random", Cdae(), training={}, scores={}))
