"""Hears every verdict on a frame, in the sinks' thread, and hands it to the parts of the page: microseconds a frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import compress

from ..flow.frame import Failure, Outcome, Result, RunStart
from ..flow.ports import Listener
from .common import Common
from .estimates import Totals
from .powder import Powder
from .scores import Scores
from .shots import Shots
from .window import Window


class HitsWatch(Listener):
    """The page's ear: goes into the pipeline's sinks. It keeps copies only, and waits for nobody.

    ``judge``: whose scores the histogram shows, ``model`` or ``prescreen`` (lit pixels, where they decide alone).
    """

    def __init__(
        self,
        common: Common,
        window: Window,
        scores: Scores,
        shots: Shots,
        powder: Powder,
        *,
        judge: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._common, self._window, self._scores = common, window, scores
        self._shots, self._powder = shots, powder
        self._judge, self._clock = judge, clock
        self.model = ""
        self.totals = Totals(0, 0)

    def start(self, mark: RunStart) -> None:
        """What is of the run begins anew."""
        self._window.new_run(self._clock())
        self._scores.new_run()
        self._powder.start(mark.run)

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Count them, put a few aside, add up some."""
        now = self._clock()
        accepted = [result.outcome is Outcome.ACCEPTED for result in results]
        hits = sum(accepted)
        self._window.add(now, hits, len(results))
        self._score(now, results, accepted)
        self.totals = Totals(self.totals.accepted + hits, self.totals.rejected + len(results) - hits)
        self._shots.offer(now, results)
        self._powder.offer(results, hits)
        return ()

    def flush(self) -> None:
        """About once a second."""
        self._common.tick()

    def close(self) -> None:
        """The powder's thread ends; everything can still be looked at."""
        self._powder.close()

    def _score(self, now: float, results: Sequence[Result], accepted: Sequence[bool]) -> None:
        judge = self._judge
        if {result.by for result in results} != {judge}:
            results, accepted = _only(results, accepted, [result.by == judge for result in results])
        if not results:
            return
        model = str(results[-1].found.get("model", ""))
        if model != self.model:
            # Scores of another model are another number, also those at the beginning of this burst.
            results, accepted = _only(results, accepted, [str(r.found.get("model", "")) == model for r in results])
            self._scores.reset()
            self.model, self.totals = model, Totals(0, 0)
        self._scores.add(now, [result.score for result in results], accepted, stored_bytes(results))


def _only(
    results: Sequence[Result], accepted: Sequence[bool], chosen: Sequence[bool]
) -> tuple[Sequence[Result], Sequence[bool]]:
    return list(compress(results, chosen)), list(compress(accepted, chosen))


def stored_bytes(results: Sequence[Result]) -> list[int]:
    """Bytes each frame takes when it is kept: the chunk as it came, or the array's where it was calibrated."""
    frames = [result.frame for result in results]
    chunks = [frame.chunk for frame in frames]
    if not any(chunks):
        return [frame.data.nbytes for frame in frames]
    return [f.data.nbytes if c is None else len(c.buffer) for f, c in zip(frames, chunks, strict=True)]
