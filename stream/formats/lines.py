"""Files of JSON objects, one per line (JSON Lines), of which a kill or a full disk may have damaged some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[int]]:
    """The objects of a file with the numbers of their lines, oldest first, and the numbers of lines that hold none.

    Lines are counted from 1; empty ones are neither. Raises ``OSError``.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    damaged: list[int] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        one = _object(line)
        if one is None:
            damaged.append(number)
        else:
            found.append((number, one))
    return found, damaged


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        one = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return one if isinstance(one, dict) else None
