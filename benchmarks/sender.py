"""The sender of every benchmark, a process of its own: the emulated detector, its frames compressed once.

python -m benchmarks.sender --frames shots.npy --images N --endpoint tcp://127.0.0.1:PORT [--rate HZ] --json FILE
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

import numpy as np
from beamsieve.stream.emulators.dectris import DectrisEmulator, frames_of


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=Path, required=True, help="uint16 frames (n, y, x), sent over and over")
    options.add_argument("--images", type=int, required=True, help="how many are sent")
    options.add_argument("--endpoint", required=True)
    options.add_argument("--rate", type=float, default=0.0, help="images per second; 0: as fast as they are taken")
    options.add_argument("--compression", default="none", help="of the pixels on the wire: none, bslz4, lz4")
    options.add_argument("--json", type=Path, required=True, help="what was sent")
    asked = options.parse_args()
    frames = np.load(asked.frames, mmap_mode="r")
    emulator = DectrisEmulator(
        asked.endpoint,
        frames_of(frames),
        compression=asked.compression,
        rate_hz=asked.rate,
        images=asked.images,
        repeat=len(frames),
    )
    emulator.open()
    tally = emulator.run()
    emulator.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    asked.json.write_text(json.dumps({**tally.report(), "cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
