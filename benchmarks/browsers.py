"""Browsers that watch a daemon's page, without drawing it: ``python -m benchmarks.browsers --port P --watching 10``.

Each reads the events as they come and fetches what the page of ``xfel_hits`` fetches: the facts once, the four powder
patterns every two seconds, an enlarged frame every five. ``--hung`` ones open the stream and never read. They run until
they are ended. ``--micrographs``: they watch ``cryoem_picks`` instead, and fetch each new micrograph with its picks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

POWDERS = ("hits-sum", "hits-max", "misses-sum", "misses-max")
POWDER_S, FRAME_S = 2.0, 5.0
FRAME = re.compile(rb'"id": ?"([^"/]+)"')
# What says which micrograph it is comes before its pixels.
MICROGRAPH = re.compile(rb'"id": ?"([^"/]+)",[^\n]{0,400}?"group": ?"micrograph"')


class Browser(threading.Thread):
    """One that watches."""

    def __init__(self, port: int, over: threading.Event, micrographs: bool) -> None:
        super().__init__(daemon=True)
        self.port, self.over, self.micrographs = port, over, micrographs
        self.events = self.nbytes = self.fetched = 0
        self.frame = ""

    def run(self) -> None:
        self.fetch("/live/facts")
        threading.Thread(target=self.look, daemon=True).start()
        while not self.over.is_set():
            with suppress(OSError, http.client.HTTPException):
                self.read()

    def read(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
            line.sendall(b"GET /live/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
            while not self.over.is_set():
                data = line.recv(1 << 20)
                if not data:
                    return
                self.nbytes += len(data)
                self.events += data.count(b"event: ")
                # Of micrographs the pictures, not their particles; of shots whatever comes.
                found = re.findall(MICROGRAPH if self.micrographs else FRAME, data)
                self.frame = found[-1].decode() if found else self.frame

    def look(self) -> None:
        seen, beat = "", 0
        while self.micrographs and not self.over.wait(POWDER_S / 4):
            if self.frame != seen:
                seen = self.frame
                self.fetch(f"/live/blob/micrograph/{seen}")
                self.fetch(f"/live/blob/picks/{seen}")
        while not self.over.wait(POWDER_S / 2):
            beat += 1
            if beat % 2 == 0:
                for name in POWDERS:
                    self.fetch(f"/live/blob/powder/{name}")
            if beat % int(FRAME_S) == 0 and self.frame:
                self.fetch(f"/live/blob/frame/{self.frame}")

    def fetch(self, path: str) -> None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            self.nbytes += len(connection.getresponse().read())
            self.fetched += 1
            connection.close()


def hang(port: int) -> socket.socket:
    """One that asks for the events and never reads them."""
    line = socket.create_connection(("127.0.0.1", port), timeout=10)
    line.sendall(b"GET /live/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return line


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--watching", type=int, default=10)
    options.add_argument("--micrographs", action="store_true")
    options.add_argument("--hung", type=int, default=0)
    options.add_argument("--json", type=Path, required=True)
    asked = options.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", asked.port), timeout=1):
            break
        time.sleep(0.1)
    lines = [hang(asked.port) for _ in range(asked.hung)]
    browsers = [Browser(asked.port, over, asked.micrographs) for _ in range(asked.watching)]
    for browser in browsers:
        browser.start()
    over.wait()
    found: dict[str, Any] = {
        "events": sum(browser.events for browser in browsers),
        "fetched": sum(browser.fetched for browser in browsers),
        "bytes": sum(browser.nbytes for browser in browsers),
        "cpu_s": time.process_time(),
    }
    asked.json.write_text(json.dumps(found))
    for line in lines:
        line.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
