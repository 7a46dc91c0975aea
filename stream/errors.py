"""Errors of the operating system in words for people."""

from __future__ import annotations


def plain(error: BaseException) -> str:
    """What went wrong, with the file where one is known, without ``[Errno 2]`` before it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)
