"""Malformed messages for testing receivers: one corpus, by kind of stream, used by every decoder's tests.

A facility can send it at its own receivers too: whatever comes, a receiver should say what is wrong, and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from . import hostile_dectris


class HostileMessage(NamedTuple):
    """One multipart message, and what is wrong with it."""

    name: str
    parts: tuple[bytes, ...]


Corpus: TypeAlias = Callable[[], Sequence[tuple[str, Sequence[bytes]]]]

_CORPORA: dict[str, Corpus] = {"dectris_v1": hostile_dectris.version_1, "dectris_v2": hostile_dectris.version_2}


def register(kind: str, corpus: Corpus) -> None:
    """Add the corpus of another kind of stream: a function that gives (name, parts) pairs."""
    _CORPORA[kind] = corpus


def kinds() -> list[str]:
    """The kinds of streams there are messages for."""
    return sorted(_CORPORA)


def corpus(kind: str) -> list[HostileMessage]:
    """All messages for a kind of stream, such as ``dectris_v2``; and those that are hostile to every kind.

    Raises ``KeyError`` for a kind that is not in ``kinds()``.
    """
    own = [HostileMessage(name, tuple(parts)) for name, parts in _CORPORA[kind]()]
    return own + [HostileMessage(name, tuple(parts)) for name, parts in _ANY]


_ANY: list[tuple[str, tuple[bytes, ...]]] = [
    ("empty part", (b"",)),
    ("many empty parts", (b"",) * 1000),
    ("one zero byte", (b"\x00",)),
    ("zeros", (bytes(4096),)),
    ("ones", (b"\xff" * 4096,)),
    ("text", (b"GET / HTTP/1.1\r\nHost: detector\r\n\r\n",)),
    ("pickle", (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",)),
    ("an HDF5 signature", (b"\x89HDF\r\n\x1a\n" + bytes(64),)),
]
