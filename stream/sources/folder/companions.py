"""How many frames a companion file says a movie has: SerialEM's mdoc, and EPU's XML."""

from __future__ import annotations

import re

_MOST_BYTES = 8 << 20
_SECTION = re.compile(r"^\s*\[(?:FrameSet|ZValue)\s*=\s*\d+\s*\]\s*$", re.MULTILINE)
_SUB_FRAMES = re.compile(r"^\s*NumSubFrames\s*=\s*(\d+)\s*$", re.MULTILINE)
_SUB_PATH = re.compile(r"^\s*SubFramePath\s*=\s*(.+?)\s*$", re.MULTILINE)
_FRACTIONS = re.compile(r"<(?:\w+:)?NumberOffractions>\s*(\d+)\s*</", re.IGNORECASE)


def expected_frames(kind: str, path: str | None, name: str) -> int | None:
    """Frames that the companion ``path`` of this ``kind`` (``mdoc``, ``xml``) promises for the movie ``name``.

    None where there is no companion, it cannot be read, or it says nothing of frames. In an mdoc with several sections
    the one whose ``SubFramePath`` (a Windows path) ends in the movie's name counts.
    """
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    found = _in_mdoc(text, name) if kind == "mdoc" else _FRACTIONS.search(text)
    return int(found[1]) if found else None


def _in_mdoc(text: str, name: str) -> re.Match[str] | None:
    """The line with the number of frames, of the movie's own section where it is named."""
    sections = _SECTION.split(text)[1:] or [text]
    last = name.rpartition("/")[2].lower()
    for section in sections:
        path = _SUB_PATH.search(section)
        if path and re.split(r"[\\/]", path[1])[-1].lower() == last:
            return _SUB_FRAMES.search(section)
    return _SUB_FRAMES.search(sections[0]) if len(sections) == 1 else None
