"""The bare loop beside the daemon: a process that receives the same messages, and does nothing with them.

python -m benchmarks.receive --endpoint tcp://127.0.0.1:PORT --images N --json FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import zmq


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--endpoint", required=True)
    options.add_argument("--images", type=int, required=True)
    options.add_argument("--decode", action="store_true", help="read and decompress each image, too")
    options.add_argument("--hwm", type=int, default=200, help="as the daemon's source has it")
    options.add_argument("--json", type=Path, required=True)
    asked = options.parse_args()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.set_hwm(asked.hwm)
        socket.connect(asked.endpoint)
        socket.recv(copy=False)  # the start of the series
        socket.recv(copy=False)
        began, nbytes = time.monotonic(), 0
        if asked.decode:
            nbytes = decode(socket, asked.images - 1)
        else:
            for _ in range(asked.images - 1):
                nbytes += len(socket.recv(copy=False))
        seconds = time.monotonic() - began
        # The end of the series: the sender would wait for ever for somebody to take it.
        socket.recv(copy=False)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"rate": (asked.images - 1) / seconds, "bytes_per_frame": nbytes / max(1, asked.images - 1)}
    asked.json.write_text(json.dumps({**found, "cpu_s": used.ru_utime + used.ru_stime}))


def decode(socket: Any, images: int) -> int:
    """Receive and decompress; gives the bytes that came."""
    from beamsieve.stream.sources.wire.dectris_v2 import Codec
    from beamsieve.stream.sources.wire.messages import Image
    from dectris.compression import decompress

    codec, nbytes = Codec(), 0
    for _ in range(images):
        message = socket.recv(copy=False).buffer
        parsed = codec.parse(message)
        assert isinstance(parsed, Image)
        for image in parsed.images.values():
            if image.compression != "none":
                decompress(image.buffer, image.compression, elem_size=image.dtype.itemsize)
        nbytes += len(message)
    return nbytes


if __name__ == "__main__":
    main()
