"""How much the page's server takes and gives before it refuses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server; the defaults are meant for a control room.

    ``tick_s``: least time between two questions for the state. ``request_s``: longest time from a connection, or from
    the first byte of a further request, to the end of that request. ``idle_s``: how long a connection without a
    request stays open. ``stalled_s``: how long a browser may take nothing of what is sent to it. ``browsers`` watch at
    once; ``connections`` are open at once; ``bodies`` large answers are under way at once. ``body`` and ``head`` are
    bytes of a request, ``url`` characters. ``acts_per_s`` and ``acts_at_once`` hold for each signed-in person.
    """

    tick_s: float = 1.0
    request_s: float = 10.0
    idle_s: int = 30
    stalled_s: float = 30.0
    browsers: int = 64
    connections: int = 256
    bodies: int = 32
    body: int = 1 << 16
    head: int = 1 << 14
    url: int = 2048
    acts_per_s: float = 10.0
    acts_at_once: int = 40
