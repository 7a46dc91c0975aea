"""A JSON file for each file that was set aside, beside the journal: what failed, why, and what to do."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from .policy import SetAside

log = logging.getLogger(__name__)

FOLDER = "set_aside"
_LONGEST = 255


def place(journal: Path, name: str) -> Path:
    """Where the reason of ``name`` (a path below the watched folder) is kept: the same folders, ``.json`` after it."""
    parts = PurePosixPath(name).parts
    last = f"{parts[-1]}.json"
    if len(last.encode()) > _LONGEST:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        last = f"{parts[-1].encode()[: _LONGEST - 30].decode(errors='ignore')}-{digest}.json"
    return journal.parent.joinpath(FOLDER, *parts[:-1], last)


def remember(journal: Path, aside: SetAside, wall: float) -> None:
    """Write why a file was set aside. The journal knows it too, so a disk that is full costs only this copy."""
    row = aside.row
    path = place(journal, row.name)
    about = {
        "name": row.name,
        "revision": row.revision,
        "reason": aside.reason,
        "detail": aside.detail,
        "attempts": aside.attempts,
        "bytes": row.stat.size,
        "set_aside": datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds"),
        "remedy": f"beamsieve retry {shlex.quote(str(journal))} {shlex.quote(row.name)}",
    }
    beside = path.with_name(path.name[: _LONGEST - 4] + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        log.warning("%s: %s; the reason is in the journal only", path, error.strerror)


def forget(journal: Path, name: str) -> None:
    """The file is no longer set aside."""
    path = place(journal, name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: %s; it can be removed", path, error.strerror)
