"""Files of a session that are whole or not there at all: written beside their place, brought to disk, renamed."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as a whole, in place of what has its name. After a failure there is nothing new. Raises ``OSError``.

    What a killed process leaves is named as the sinks name it, so that their sweep finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
    beside = path.with_name(f".{path.name}.{host}-{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
