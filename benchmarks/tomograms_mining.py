"""Mining a tomogram: seconds by stage and peak memory beside the naive way, from a file on disk.

One row per tomogram of noise and blobs: statistics, picks, sub-volumes, poses, codes, reconstruction errors, and the
nearest of 100 cluster centres, in a process of its own, so that its peak of resident memory is that of the work.

The naive way is scipy on the whole volume in memory (Gaussian, difference of Gaussians, maximum filter), and then one
sub-volume at a time: cut out, posed by the published sums, turned by ``affine_transform``, encoded and decoded by the
module as it was loaded. It is measured on a crop and some sub-volumes, and scaled: by voxels, and by sub-volumes.

    python -m benchmarks.tomograms_mining --mine FILE --bundle NAME --threads N [--posed]      (a child: prints JSON)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle
from beamsieve.models.tomograms.boxes import EDGE, cut
from beamsieve.models.tomograms.bundles import untrained
from beamsieve.models.tomograms.cluster import assign, cluster
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.dog import DogOptions, pick
from beamsieve.models.tomograms.mine import MineOptions, Miner
from beamsieve.models.tomograms.volume import ArrayVolume
from beamsieve.models.tomograms.working import VOXEL_A
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.formats.volumes import open_volume
from scipy import ndimage

from .picking import best, memory_mb
from .report import Report, Target

COLUMNS = {
    "what": "s", "picks": ",d", "seconds": ".1f", "statistics": ".1f", "pick": ".1f", "boxes": ".1f", "pose": ".1f",
    "encode": ".1f", "error": ".1f", "assign": ".2f", "ms/box": ".2f", "MB at rest": ",.0f", "MB peak": ",.0f",
    "naive s": ",.0f", "× naive": ".1f",
}  # fmt: skip
TARGET_S, TARGET_MB = 180.0, 4000.0
FULL = (300, 928, 928)
TILE = 256
NAIVE_BOXES = 16
CLUSTERS = 100


def measure(folder: Path, *, codec: str, threads: int, quick: bool) -> Report:
    """All rows. ``codec``: name or path of an autoencoder; where there is none of that name, random weights."""
    report = Report("tomograms_mining", f"Tomograms picked, encoded and assigned, {threads} threads", COLUMNS)
    bundle = _bundle(folder, codec, report)
    _picking(report, threads, quick)
    naive_voxel_s, naive_box_s = _naive(bundle, report)
    for what, shape, voxel_a, posed in _cases(quick):
        path = tomogram(folder / "tomogram.mrc", shape, voxel_a)
        found = _child(path, bundle, threads, posed)
        path.unlink()
        scale = (voxel_a / VOXEL_A) ** 3 if abs(VOXEL_A / voxel_a - 1) > 0.03 else 1.0
        naive = float(np.prod(shape)) * scale * naive_voxel_s + found["picks"] * naive_box_s
        report.rows.append({"what": what, **found, "naive s": naive, "× naive": naive / found["seconds"]})
        if shape == FULL and posed and voxel_a == VOXEL_A:
            report.targets.append(Target(what, TARGET_S, found["seconds"], "s", at_least=False))
        report.targets.append(Target(f"memory, {what}", TARGET_MB, found["MB peak"], "MB", at_least=False))
    return report


def _cases(quick: bool) -> list[tuple[str, tuple[int, int, int], float, bool]]:
    if quick:
        return [("400 × 400 × 150, posed", (150, 400, 400), VOXEL_A, True)]
    return [
        ("928 × 928 × 300, posed", FULL, VOXEL_A, True),
        ("928 × 928 × 300, as they lie", FULL, VOXEL_A, False),
        ("928 × 928 × 300 at 10 Å, posed", FULL, 10.0, True),
        ("1440 × 1024 × 500, posed", (500, 1024, 1440), VOXEL_A, True),
    ]


def tomogram(path: Path, shape: tuple[int, int, int], voxel_a: float) -> Path:
    """Noise and a blob of 8 voxels across for every 100 000 voxels, float32, density dark, plane by plane."""
    rng = np.random.default_rng(0)
    z, y, x = shape
    count = z * y * x // 100_000
    places = np.sort(rng.uniform(0, z, count)), rng.uniform(4, y - 5, count), rng.uniform(4, x - 5, count)
    with MrcWriter(path, shape, 2, voxel_a) as writer:
        for plane in range(z):
            data = rng.standard_normal((y, x), np.float32)
            for k, j, i in zip(*(at[np.abs(places[0] - plane) < 9] for at in places), strict=True):
                rows, columns = slice(max(0, int(j) - 9), int(j) + 10), slice(max(0, int(i) - 9), int(i) + 10)
                b, a = np.ogrid[rows.start : min(rows.stop, y), columns.start : min(columns.stop, x)]
                data[rows, columns] -= 1.5 * np.exp(-((plane - k) ** 2 + (b - j) ** 2 + (a - i) ** 2) / 32)
            writer.write(data)
    return path


def _picking(report: Report, threads: int, quick: bool) -> None:
    """The picks alone, on a volume in memory, beside scipy on the same."""
    data = np.random.default_rng(0).standard_normal((TILE // 2 if quick else TILE, TILE, TILE), np.float32)
    ours = best(lambda: pick(ArrayVolume(data, VOXEL_A), threads=threads), 3)
    naive = best(lambda: naive_picks(data), 1)
    report.rows.append(
        {"what": f"picks alone, {' × '.join(map(str, data.shape[::-1]))} in memory", "pick": ours, "seconds": ours,
         "picks": len(pick(ArrayVolume(data, VOXEL_A)).xyz), "naive s": naive, "× naive": naive / ours}
    )  # fmt: skip


def naive_picks(data: np.ndarray) -> np.ndarray:
    """Maxima of the difference of Gaussians, z, y, x, filter after filter over the whole volume."""
    options = DogOptions()
    smooth = ndimage.gaussian_filter(data, options.smooth)
    narrow, wide = (ndimage.gaussian_filter(smooth, options.sigma * k) for k in (1, options.ratio))
    dog = narrow - wide
    return np.argwhere((dog == ndimage.maximum_filter(dog, 3)) & (dog > options.threshold * dog.std()))


def _naive(bundle: Bundle, report: Report) -> tuple[float, float]:
    """Seconds of the naive way per voxel and per sub-volume, each with as many threads of torch as are there."""
    data = np.random.default_rng(1).standard_normal((TILE // 2, TILE, TILE), np.float32)
    voxel_s = best(lambda: naive_picks(data), 1) / data.size
    volume = ArrayVolume(data, VOXEL_A)
    corners = np.random.default_rng(2).integers(40, TILE // 2 - 40, (NAIVE_BOXES, 3)).tolist()

    def one_by_one() -> None:
        for z, y, x in corners:
            naive_box(volume, (z, y, x), bundle.module)

    box_s = best(one_by_one, 2) / NAIVE_BOXES
    report.notes.append(
        f"naive: {1e9 * voxel_s:.0f} ns per voxel to pick (on {TILE} × {TILE} × {TILE // 2}), {1e3 * box_s:.1f} ms per "
        f"sub-volume (of {NAIVE_BOXES}), scaled to each tomogram; reading, statistics and rescaling not counted"
    )
    return voxel_s, box_s


@torch.inference_mode()
def naive_box(volume: ArrayVolume, corner: tuple[int, int, int], module: torch.nn.Module) -> float:
    """One sub-volume, posed by the published sums over raw values made positive; its reconstruction error."""
    box = cut(volume, corner, (EDGE, EDGE, EDGE))
    value = box - box.min()
    at = np.stack(np.meshgrid(*[np.arange(EDGE, dtype=float)] * 3, indexing="ij"), -1).reshape(-1, 3)
    mass = value.ravel()
    centre = mass @ at / mass.sum()
    away = at - centre
    axes = np.linalg.eigh((away * mass[:, None] ** 2).T @ away)[1]
    wide = cut(volume, (corner[0] - 16, corner[1] - 16, corner[2] - 16), (2 * EDGE, 2 * EDGE, 2 * EDGE))
    start = centre + 16 - axes @ np.full(3, EDGE / 2)
    turned = ndimage.affine_transform(wide, axes, start, (EDGE, EDGE, EDGE), order=1)
    ready = torch.from_numpy((turned - turned.mean()) / turned.std()).float()[None, None]
    return float((module(ready) - ready).square().mean())


def _child(path: Path, bundle: Bundle, threads: int, posed: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.tomograms_mining", "--mine", str(path)]
    command += ["--bundle", str(bundle.path), "--threads", str(threads), *(["--posed"] if posed else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def child(asked: argparse.Namespace) -> None:
    codec = Codec(load_bundle(asked.bundle), device="cpu", threads=asked.threads)
    codec.warm_up()
    centres = cluster(np.random.default_rng(0).random((2 * CLUSTERS, codec.codes), np.float32), k=CLUSTERS, restarts=1)
    rest = memory_mb("VmRSS")
    began = time.perf_counter()
    with open_volume(asked.mine) as volume:
        mined = Miner(codec, MineOptions(posed=asked.posed), threads=asked.threads).mine(volume)
    before = time.perf_counter()
    assign(mined.codes, centres)
    done = time.perf_counter()
    boxes_s = sum(mined.seconds[stage] for stage in ("boxes", "pose", "encode", "error"))
    found = {
        "picks": len(mined), "seconds": done - began, **mined.seconds, "assign": done - before,
        "ms/box": 1e3 * boxes_s / max(len(mined), 1), "MB at rest": rest, "MB peak": memory_mb("VmHWM"),
    }  # fmt: skip
    print(json.dumps(found))


def _bundle(folder: Path, name: str, report: Report) -> Bundle:
    try:
        return load_bundle(name).expect(task="tomograms")
    except BundleError as error:
        if error.reason != "unknown":
            raise
    report.notes.append(f"no bundle named {name}: random weights instead, which take as long")
    return load_bundle(untrained(folder, "random"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mine", required=True, metavar="FILE")
    options.add_argument("--bundle", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--posed", action="store_true")
    child(options.parse_args())


if __name__ == "__main__":
    main()
