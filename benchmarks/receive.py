"""The bare loop beside the daemon: a process that receives the same messages, and does nothing with them.

python -m benchmarks.receive --endpoint tcp://127.0.0.1:PORT --images N --json FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import zmq


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--endpoint", required=True)
    options.add_argument("--images", type=int, required=True)
    options.add_argument("--hwm", type=int, default=200, help="as the daemon's source has it")
    options.add_argument("--json", type=Path, required=True)
    asked = options.parse_args()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.set_hwm(asked.hwm)
        socket.connect(asked.endpoint)
        socket.recv(copy=False)  # the start of the series
        socket.recv(copy=False)
        began, nbytes = time.monotonic(), 0
        for _ in range(asked.images - 1):
            nbytes += len(socket.recv(copy=False))
        seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"rate": (asked.images - 1) / seconds, "bytes_per_frame": nbytes / max(1, asked.images - 1)}
    asked.json.write_text(json.dumps({**found, "cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
