"""What tells the classes of a micrograph that was picked and written: in the sinks' thread, in microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..flow.frame import Failure, Result, RunEnd, RunStart
from ..flow.ports import Listener
from ..sinks.picks.micrograph import PickedMicrograph

#: Once a folder has given all there is, nobody waits but for the classes; at a stop the service manager waits.
DRAINED_S, STOPPED_S = 30.0, 10.0
_DRAINED = frozenset({"end", "idle"})


class Hears(Protocol):
    """Who is told."""

    def tell(self, name: str, count: int) -> None:
        """The record of this micrograph, with ``count`` particles, is on the disk."""

    def finish(self, seconds: float) -> None:
        """No more will come: do what is left, for about so long. Returns at once."""


class ClassWatch(Listener):
    """Hears of micrographs after the sink before it has written them, and passes their names on.

    No pixels are passed on: a threshold that was moved changes what is kept of a micrograph, and the record on the disk
    is what counts. What is on it was written a moment ago, and is read from memory.
    """

    def __init__(self, worker: Hears) -> None:
        self._worker = worker
        self._drained = False

    def start(self, mark: RunStart) -> None:  # noqa: ARG002 - whichever it is
        """More will come."""
        self._drained = False

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """A name each."""
        for result in results:
            found = result.found.get("micrograph")
            if isinstance(found, PickedMicrograph) and result.weight > 0.0 and not found.skipped:
                self._worker.tell(found.name, int(found.picked.sum()))
        return ()

    def end(self, mark: RunEnd) -> None:
        """Remember whether it ended by itself."""
        self._drained = mark.reason in _DRAINED

    def close(self) -> None:
        """The pipeline is over."""
        self._worker.finish(DRAINED_S if self._drained else STOPPED_S)
