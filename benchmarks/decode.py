"""What each step before the network costs, per frame, beside the plain numpy that one would write first.

In one process and one thread, on bursts as the daemon takes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from beamsieve.models.hits.infer import to_input
from beamsieve.models.hits.litpixel import LitPixels
from beamsieve.stream.decode.calibrate import CalibrateSettings, Calibrator
from beamsieve.stream.decode.constants import Constants
from beamsieve.stream.decode.decompress import decompress, decompress_many
from beamsieve.stream.emulators.compress import Compressor
from beamsieve.stream.flow.frame import Encoded
from dectris.compression import decompress as library

from .report import Report
from .shots import ADU_THRESHOLD, Shots

COLUMNS = {"what": "s", "step": "s", "µs": ".1f", "naive µs": ".1f", "naive : ours": ".1f", "naive": "s"}
GOOD_ENOUGH = 7


def measure(shots: Shots, *, quick: bool) -> Report:
    """Five steps at 128² and at one megapixel."""
    report = Report("decode", "Per frame, one thread", COLUMNS)
    for name, size, burst in (("128²", 128, 32), ("1 Mpx", 1024, 1)):
        file, _ = shots.file(size, 0.05)
        frames = np.load(file)[-burst:]
        for step, ours, naive, how in steps(frames, size):
            mine, theirs = per_frame(ours, burst, quick), per_frame(naive, burst, quick)
            report.rows.append(
                {
                    "what": name,
                    "step": step,
                    "µs": mine,
                    "naive µs": theirs,
                    "naive : ours": theirs / mine,
                    "naive": how,
                }
            )
    return report


def steps(frames: npt.NDArray[np.uint16], size: int) -> list[tuple[str, Callable[[], Any], Callable[[], Any], str]]:
    """(name, ours, the naive way, and what that is)."""
    with Compressor("bslz4") as compressor:
        blobs = [compressor.compress(frame) for frame in frames]
    encoded = [Encoded(memoryview(blob), frames.shape[1:], np.dtype("<u2"), "bslz4") for blob in blobs]
    dark, gain = np.full(frames.shape[1:], 0.2, np.float32), np.full(frames.shape[1:], 1.1, np.float32)
    mask = np.zeros(frames.shape[1:], np.uint32)
    mask[::37, ::41] = 8
    counting = Calibrator(CalibrateSettings(), Constants(mask, dark=None, gain=None))
    charge = Calibrator(
        CalibrateSettings(kind="standard", adu_per_photon=1.0, round="nearest"), Constants(mask, dark=dark, gain=gain)
    )
    lit = LitPixels(adu_threshold=ADU_THRESHOLD)
    bad, bin = mask != 0, size // 128

    def unpack() -> Any:
        if len(encoded) == 1:
            return decompress(encoded[0])
        return decompress_many(encoded)

    def unpack_each() -> Any:
        plain = [library(blob, "bslz4", elem_size=2) for blob in blobs]
        return np.stack([np.frombuffer(one, "<u2").reshape(frames.shape[1:]) for one in plain])

    def photons() -> Any:
        signal = (frames.astype(np.float32) - dark) / gain
        signal[:, bad] = 0
        return np.clip(np.rint(signal), 0, 65535).astype(np.uint16)

    def saturated() -> Any:
        return [(frame == 65535).any() for frame in frames]

    def cut() -> Any:
        whole = np.where(bad, 0, frames).astype(np.float32)
        return whole.reshape(len(frames), 128, bin, 128, bin).sum((2, 4))

    return [
        ("decompress", unpack, unpack_each, "the library, frame by frame, and np.stack"),
        ("calibrate: counting", lambda: counting.apply(frames), saturated, "(frame == 65535).any()"),
        ("calibrate: dark, gain, photons", lambda: charge.apply(frames), photons, "np.rint((frame - dark) / gain)"),
        ("lit pixels", lambda: lit.count(frames), lambda: (frames > ADU_THRESHOLD).sum((1, 2)), "(frames > 1).sum()"),
        ("to_input", lambda: to_input(frames, bad, bin=bin), cut, "np.where, astype, reshape, sum"),
    ]


def per_frame(call: Callable[[], Any], frames: int, quick: bool) -> float:
    """Microseconds per frame of the fastest of several calls: the one that was least disturbed."""
    best, calls, end = float("inf"), 0, time.perf_counter() + (0.1 if quick else 0.5)
    while calls < GOOD_ENOUGH or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
        calls += 1
    return 1e6 * best / frames
