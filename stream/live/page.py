"""The contracts of the live page: what a beamline shows, what a person may change, and how it is refused.

The server asks; the beamline answers. Nothing here knows of HTTP, and nothing of detectors or micrographs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

JSON = dict[str, Any]


class Refused(Exception):
    """A person asked for what cannot be done; the message says why, and what would do. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture that every browser gets once, in the stream of events.

    ``seq``: counts up from 1 over all pictures of the daemon. ``fields``: ready for JSON, with at least ``id``,
    ``group``, ``w``, ``h`` and ``pixels`` (base64 of h·w bytes, row by row). ``encoded`` is made once for all browsers.
    """

    seq: int
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Blob:
    """An answer that is fetched on demand: an array, a picture or JSON.

    ``head``: what a browser needs to read the body (``shape``, ``dtype`` in little-endian numpy words, and what belongs
    to it); it travels as JSON in the header ``X-Beamsieve``, so it holds ASCII and stays below 4 kB. ``lasting``: the
    same address will always give the same body.
    """

    body: bytes
    kind: str = "application/octet-stream"
    head: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False


class Page(Protocol):
    """What a beamline shows. The server calls every method from its own threads, never from the pipeline's.

    All must be quick (milliseconds) and must not wait for the pipeline: they read what a ``Listener`` has put aside.
    """

    beamline: str

    def facts(self) -> JSON:
        """All that a browser needs when it comes: history of the curves, rows of tables, names, texts."""

    def snapshot(self) -> JSON:
        """The state now. Asked at most once a second for all browsers together, and only while there is one."""

    def pictures(self, after: int) -> Sequence[Picture]:
        """The pictures with ``seq > after`` that are still kept, oldest first; 0 gives all that a new browser needs."""

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """What ``kind`` and ``name`` stand for, or None. Names are looked up among those given out, never opened."""

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """Do what a signed-in person asks; ``by`` is the name they gave. Raises ``Refused`` for what cannot be done.

        May take seconds (a model that is loaded): it is called in a thread of its own, one at a time.
        """


class Controls(Protocol):
    """What a person may change on a running daemon. Called from the server's threads, one ``act`` at a time."""

    def state(self) -> JSON:
        """Fields of the snapshot: ``threshold``, ``writing``, ``run``, ``model``, ``candidate``, ``changes``."""

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """``threshold``, ``pause``, ``run``, ``candidate``, ``promote``, ``dismiss``. Raises ``Refused``.

        Every change is logged with time, name, old and new value before this returns.
        """
