"""Globs on paths below a folder, with ``**`` for any folders; upper and lower case are the same, as on Windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

Test: TypeAlias = Callable[[str], bool]


def compile_globs(globs: Sequence[str]) -> Test:
    """A test whether a path (``/`` between its parts) matches one of ``globs``; none match nothing.

    ``*`` and ``?`` stay within one part, ``[ab]`` and ``[!ab]`` are one of some characters, ``**/`` is any number of
    folders, none too, and ``**`` at the end everything below. Raises ``ValueError`` with what is wrong with a glob.
    """
    pattern = re.compile("|".join(f"(?:{_regex(glob)})" for glob in globs) or r"(?!)", re.IGNORECASE | re.DOTALL)
    return lambda path: pattern.fullmatch(path) is not None


def _regex(glob: str) -> str:
    if not glob or glob.startswith("/") or "\\" in glob:
        raise ValueError(f"pattern {glob!r}: write it as below the folder with forward slashes, such as **/*.mrc")
    out, at = "", 0
    while at < len(glob):
        if glob.startswith("**/", at) and (at == 0 or glob[at - 1] == "/"):
            out, at = out + "(?:[^/]+/)*", at + 3
        elif glob[at:] == "**" and (at == 0 or glob[at - 1] == "/"):
            out, at = out + ".*", at + 2
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out, at = out + (f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"), end + 1
        else:
            out, at = out + {"*": "[^/]*", "?": "[^/]"}.get(glob[at], re.escape(glob[at])), at + 1
    try:
        re.compile(out)
    except re.error as error:
        raise ValueError(f"pattern {glob!r}: {error}") from None
    return out
