"""Picking: DeepEM's dense scan beside the naive one patch by patch, seconds per micrograph, and peak memory.

The naive scan is the paper's: cut out a box, turn it four times, ask the network, move on. It is measured on a cut-out
with the same weights in the same process, with one torch thread and with all (the faster counts), and extrapolated:
seconds per patch times the patches of the whole micrograph. ``--full`` runs it once in full (many minutes).

    python -m benchmarks.picking --rss NY NX PIXEL_A --bundle NAME --threads N      (a child: prints its peak memory)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.particles.deepem import PRESETS, DeepEM, Layout, layout_for
from beamsieve.models.particles.dense import DenseScan
from beamsieve.models.particles.pick import Picker

from .report import Report, Target

COLUMNS = {
    "what": "s", "step px": "d", "seconds": ".2f", "naive s": ",.0f", "× naive": ",.0f", "prepare": ".2f",
    "scan": ".2f", "decide": ".3f", "per hour": ",.0f", "MB at rest": ",.0f", "MB peak": ",.0f",
    "MB of it image": ",.0f",
}  # fmt: skip
KLH = (2048, 2048)
PAPER_STEP = 20
PATCHES = 16
MICROGRAPHS = {"4096 × 4096, 1 Å": (4096, 4096, 1.0), "K3 4092 × 5760, 0.85 Å": (4092, 5760, 0.85)}
SUPERRES = {"K3 super-resolution 8184 × 11520, 0.425 Å": (8184, 11520, 0.425)}
RATIO, KLH_S, PER_HOUR = 300.0, 4.0, 1200.0


def measure(folder: Path, *, picker: str, device: str, threads: int, quick: bool, full: bool) -> Report:
    """All rows. ``picker``: name or path of the bundle; where there is none of that name, random weights of box 56."""
    report = Report("picking", f"DeepEM on whole micrographs, four rotations, {device}, {threads} threads", COLUMNS)
    _against_naive(report, device, threads, quick, full)
    bundle = _bundle(folder, picker, report)
    _micrographs(report, bundle, device, threads, quick)
    if device == "cpu":
        _memory(report, bundle, threads, quick)
    return report


def _against_naive(report: Report, device: str, threads: int, quick: bool, full: bool) -> None:
    layout = PRESETS["klh"]
    net = random_network(layout)
    image = np.random.default_rng(0).normal(size=KLH).astype(np.float32)
    patch_s, how = _patch_seconds(net, image, device, threads, 8 if quick else PATCHES)
    each = [(n - layout.box) // PAPER_STEP + 1 for n in KLH]
    patches = 4 * each[0] * each[1]
    naive = patches * patch_s
    report.notes.append(
        f"klh 2048²: naive {1e3 * patch_s:.1f} ms per patch ({how}) × {each[0]} × {each[1]} boxes at the paper's step "
        f"of {PAPER_STEP} px × 4 rotations = {naive:,.0f} s"
    )
    if full:
        began = time.perf_counter()
        naive_scan(net, image, PAPER_STEP, device)
        measured = time.perf_counter() - began
        report.notes.append(f"klh 2048²: naive in full, {patches} patches: {measured:,.0f} s")
        naive = measured
    for fine in (False, True):
        scan = DenseScan(net, fine=fine, device=device, threads=threads)
        seconds = best(lambda scan=scan: scan.log_odds(image), 2 if quick else 5)  # type: ignore[misc]
        row = {"what": "klh, 2048 × 2048", "step px": scan.stride, "seconds": seconds, "naive s": naive}
        report.rows.append(row | {"× naive": naive / seconds})
        same = 4 * np.prod(scan.grid(KLH)) * patch_s
        report.notes.append(
            f"klh 2048²: naive at the same {scan.stride} px would be {same:,.0f} s: × {same / seconds:,.0f}"
        )
        if not fine:
            report.targets.append(Target("klh 2048² at step 12 against naive at step 20", RATIO, naive / seconds, "×"))
            report.targets.append(Target("klh 2048² at step 12", KLH_S, seconds, "s", at_least=False))
    report.notes.append(
        f"largest difference of a score from the naive one on the cut-out: {_difference(net, image):.1e}"
    )


def _patch_seconds(net: DeepEM, image: np.ndarray, device: str, threads: int, count: int) -> tuple[float, str]:
    """Seconds per patch of the naive scan, at the number of torch threads that is faster here."""
    strip = image[: net.box, : net.box + PAPER_STEP * (count - 1)]
    before, found = torch.get_num_threads(), {}
    try:
        for n in sorted({1, threads}) if device == "cpu" else [threads]:
            torch.set_num_threads(n)
            found[n] = best(lambda: naive_scan(net, strip, PAPER_STEP, device), 2) / (4 * count)
    finally:
        torch.set_num_threads(before)
    fastest = min(found, key=lambda n: found[n])
    said = ", ".join(f"{n} threads {1e3 * seconds:.1f} ms" for n, seconds in found.items())
    return found[fastest], f"{4 * count} patches; {said}"


def naive_scan(net: torch.nn.Module, image: np.ndarray, step: int, device: str = "cpu", batch: int = 16) -> np.ndarray:
    """Mean scores of four rotations, box by box, (ny, nx): the boxes of a batch go through the network together."""
    box = int(net.box)  # type: ignore[arg-type]
    whole = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    there = net.to(device)
    ny, nx = ((n - box) // step + 1 for n in image.shape)
    places = [(i * step, j * step) for i in range(ny) for j in range(nx)]
    found = []
    with torch.inference_mode():
        for first in range(0, len(places), batch):
            boxes = torch.stack([whole[y : y + box, x : x + box] for y, x in places[first : first + batch]])[:, None]
            turned = [there(torch.rot90(boxes, k, (-2, -1)))[:, 0] for k in range(4)]
            found.append(torch.stack(turned).mean(0).cpu())
    net.to("cpu")
    return torch.cat(found).reshape(ny, nx).numpy()


def _difference(net: DeepEM, image: np.ndarray) -> float:
    cut = image[: net.box + 13, : net.box + 25]
    scan = DenseScan(net, fine=False)
    return float(np.abs(scan.scores(cut) - naive_scan(net, cut, scan.stride)).max())


def _micrographs(report: Report, bundle: Bundle, device: str, threads: int, quick: bool) -> None:
    """Seconds per micrograph of the picker alone: no file is read, nothing is written."""
    picker = Picker(bundle, device=device, threads=threads)
    picker.warm_up()
    for what, (ny, nx, pixel_a) in MICROGRAPHS.items():
        image = micrograph(ny, nx)
        prepared = picker.prepare(image, pixel_a)
        scores = picker.run(prepared)
        n = 2 if quick else 5
        parts = {
            "prepare": best(lambda image=image, a=pixel_a: picker.prepare(image, a), n),  # type: ignore[misc]
            "scan": best(lambda p=prepared: picker.run(p), n),  # type: ignore[misc]
            "decide": best(lambda p=prepared, s=scores: picker.decide(p, s), n),  # type: ignore[misc]
        }
        seconds = sum(parts.values())
        report.rows.append(
            {"what": what, "step px": picker.scan.stride, "seconds": seconds, **parts, "per hour": 3600 / seconds}
        )
        shape = " × ".join(map(str, prepared.image.shape))
        report.notes.append(f"{what}: {shape} pixels at the model's {picker.pixel_a:.3g} Å, box {picker.box}")
        if (ny, nx) == (4096, 4096):
            report.targets.append(Target("micrographs of 4096², picker alone", PER_HOUR, 3600 / seconds, "per hour"))


def _memory(report: Report, bundle: Bundle, threads: int, quick: bool) -> None:
    """Peak resident memory of a process that picks one micrograph."""
    cases = {**MICROGRAPHS, **SUPERRES}
    if not quick:
        pixel_a = bundle.card.input.pixel_a
        assert pixel_a is not None
        cases["8184 × 11520, not binned"] = (8184, 11520, pixel_a)
    for what, (ny, nx, pixel_a) in cases.items():
        command = [sys.executable, "-m", "benchmarks.picking", "--rss", str(ny), str(nx), str(pixel_a)]
        command += ["--bundle", str(bundle.path), "--threads", str(threads)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        report.rows.append({"what": what, "seconds": found.pop("seconds"), **found})


def child(asked: argparse.Namespace) -> None:
    ny, nx = (int(n) for n in asked.rss[:2])
    picker = Picker(load_bundle(asked.bundle), device="cpu", threads=asked.threads)
    picker.warm_up()
    rest = memory_mb("VmRSS")
    image = micrograph(ny, nx)
    began = time.perf_counter()
    picker.pick(image, float(asked.rss[2]))
    seconds = time.perf_counter() - began
    found = {"MB at rest": rest, "MB peak": memory_mb("VmHWM"), "MB of it image": image.nbytes / 1e6}
    print(json.dumps({"seconds": seconds, **found}))


def memory_mb(name: str) -> float:
    """Resident memory of this process: ``VmRSS`` now, ``VmHWM`` at most so far (getrusage would tell the parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1e6


def micrograph(ny: int, nx: int) -> np.ndarray:
    """Counts of a micrograph without particles, uint16."""
    return np.random.default_rng(0).integers(80, 120, (ny, nx), np.uint16)


def random_network(layout: Layout) -> DeepEM:
    torch.manual_seed(0)
    return DeepEM(layout, activation="sigmoid").eval()


def best(call: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of ``times`` calls, after one that does not count."""
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def _bundle(folder: Path, name: str, report: Report) -> Bundle:
    try:
        return load_bundle(name).expect(task="particles")
    except BundleError as error:
        if error.reason != "unknown":
            raise
    layout = layout_for(56)
    card = {
        "version": "0", "task": "particles", "threshold": 0.5, "training": {}, "scores": {}, "trained_by": "nobody",
        "licence": "none", "output": {"classes": ["particle"], "kind": "probabilities"},
        "input": {"name": "micrograph", "shape": [1, layout.box, layout.box], "dtype": "float32",
                  "normalisation": "the micrograph", "pixel_a": 4.0, "diameter_a": 150.0},
    }  # fmt: skip
    report.notes.append(
        f"no bundle named {name}: random weights of box {layout.box} at 4 Å instead, which take as long"
    )
    with quiet_torchscript():
        return load_bundle(save_bundle(folder, "random", torch.jit.script(random_network(layout)), card))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rss", nargs=3, required=True, metavar=("NY", "NX", "PIXEL_A"))
    options.add_argument("--bundle", required=True)
    options.add_argument("--threads", type=int, required=True)
    child(options.parse_args())


if __name__ == "__main__":
    main()
