"""The live lines: what the beam is doing, in one line of a terminal, once a second."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from .flow.metrics import Metrics
from .flow.pipeline import Pipeline
from .flow.rates import Rate, Window


def percent(rate: Rate) -> str:
    """A hit rate with its 95 % interval, as ``5.1 % [4.2, 6.1]``."""
    if not rate.shots:
        return "– %"
    low, high = rate.interval
    return f"{100 * rate.fraction:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


class Line:
    """A line rewritten in place on a terminal, or printed every ``every_s`` seconds into a file or pipe."""

    def __init__(self, out: TextIO | None = None, every_s: float = 5.0) -> None:
        self._out = out or sys.stderr
        self._tty = self._out.isatty()
        self._every_s = every_s
        self._printed = -float("inf")

    def __call__(self, pipeline: Pipeline, problems: Sequence[str]) -> None:
        """Show the state now (the ``show`` of ``serve``)."""
        now = time.monotonic()
        text = self.text(now, () if pipeline.finished.is_set() else problems)
        if self._tty:
            width = shutil.get_terminal_size((160, 24)).columns
            self._out.write("\r\x1b[K" + text[: width - 1])
            if pipeline.finished.is_set():
                self._out.write("\n")
            self._out.flush()
        elif now - self._printed >= self._every_s or pipeline.finished.is_set():
            self._printed = now
            self._out.write(text + "\n")
            self._out.flush()

    def text(self, now: float, problems: Sequence[str] = ()) -> str:
        """The line at ``now`` (monotonic seconds)."""
        raise NotImplementedError


class LiveLine(Line):
    """Says how shots go.

    Rate of shots, hit rate with Wilson's 95 % interval over the last ten seconds and over all, answers by class,
    losses, latency from arrival to verdict (median and 99th percentile), queues, and why it is not ready.
    """

    def __init__(self, metrics: Metrics, out: TextIO | None = None, every_s: float = 5.0) -> None:
        super().__init__(out, every_s)
        self._metrics = metrics
        now = time.monotonic()
        self._window = Window(10, now)
        self._read = Window(10, now)

    def text(self, now: float, problems: Sequence[str] = ()) -> str:
        """The line at ``now`` (monotonic seconds)."""
        tally = self._metrics.tally()
        hits, shots = self._metrics.hits()
        last = self._window.rate(now, hits, shots)
        speed = self._read.rate(now, 0, tally.read)
        overall = Rate(hits, shots, now - self._metrics.started)
        parts = [
            f"{speed.per_second:6.1f} shots/s" if speed.shots else "no shots now",
            f"hits {percent(last)}",
            f"all {percent(overall)}",
            *self._answers(),
        ]
        parts.append(f"dropped {tally.dropped} failed {tally.failed}")
        median, p99 = self._metrics.latency(0.5, 0.99)
        if shots:
            parts.append(f"latency {1000 * median:.1f}/{1000 * p99:.1f} ms")
        queued = {name: depth for name, depth, _ in self._metrics.depths() if depth}
        parts.append("queued " + (" ".join(f"{name} {depth}" for name, depth in queued.items()) or "0"))
        if problems:
            parts.append("NOT READY: " + "; ".join(problems))
        return " │ ".join(parts)

    def _answers(self) -> list[str]:
        """Answers by class; nothing where none names a class, as when lit pixels decide alone."""
        counts: dict[str, int] = dict.fromkeys(self._metrics.labels, 0)
        for (_, label), n in self._metrics.verdicts().items():
            if label in counts:
                counts[label] += n
        return ["particles " + " ".join(f"{label}:{n}" for label, n in counts.items())] if any(counts.values()) else []


class YieldLine(Line):
    """Says how micrographs go.

    Micrographs per hour over the last ten minutes, picks of the last one beside the medians of the last ten and of the
    session, particles, losses, seconds from complete file to picks, what waits and why, and why it is not ready.
    """

    WINDOW_S = 600
    TELLING_S = 60

    def __init__(self, metrics: Metrics, out: TextIO | None = None, every_s: float = 5.0) -> None:
        super().__init__(out, every_s)
        self._metrics = metrics
        self._read = Window(self.WINDOW_S, time.monotonic())

    def text(self, now: float, problems: Sequence[str] = ()) -> str:
        """The line at ``now`` (monotonic seconds)."""
        tally, yields = self._metrics.tally(), self._metrics.yields
        assert yields is not None, "a beamline of micrographs counts yields"
        trend, waiting = yields.trend(), yields.waiting()
        speed = self._read.rate(now, 0, tally.read)
        parts = [self._speed(speed) if speed.shots else "no micrographs now"]
        if trend.micrographs:
            parts.append(f"picks {trend.last:.0f} (last 10: {trend.recent:g}, session: {trend.median:g})")
            parts.append(f"{trend.particles} particles in {trend.micrographs} micrographs")
            median, p99 = self._metrics.latency(0.5, 0.99)
            parts.append(f"{median:.1f}/{p99:.1f} s")
        parts.append(f"rejected {tally.rejected} failed {tally.failed} dropped {tally.dropped}")
        if waiting.reasons:
            why = " ".join(f"{reason} {n}" for reason, n in waiting.reasons.items())
            parts.append(f"waiting: {why}, oldest {waiting.oldest_s:.0f} s")
        if tally.in_flight:
            parts.append(f"in work {tally.in_flight}")
        if problems:
            parts.append("NOT READY: " + "; ".join(problems))
        return " │ ".join(parts)

    def _speed(self, speed: Rate) -> str:
        """Micrographs per hour, once they say something."""
        if speed.seconds < self.TELLING_S:
            return f"{speed.shots} micrographs"
        return f"{3600 * speed.per_second:.0f} micrographs/h"


class MiningLine(Line):
    """Says how tomograms go.

    Tomograms, sub-volumes by class, what is worked on now and how far it is, the drift of the reconstruction's error,
    losses, what waits and why, and why it is not ready. ``working``: (what, done, of) of the tomogram in work, None
    where there is none.
    """

    DRIFTED = 1.25

    def __init__(
        self,
        metrics: Metrics,
        working: Callable[[], tuple[str, int, int] | None] = lambda: None,
        out: TextIO | None = None,
        every_s: float = 5.0,
    ) -> None:
        super().__init__(out, every_s)
        self._metrics, self._working = metrics, working

    def text(self, now: float, problems: Sequence[str] = ()) -> str:  # noqa: ARG002 - nothing here is a rate
        """The line now."""
        tally, mined = self._metrics.tally(), self._metrics.mined
        assert mined is not None, "a beamline of tomograms counts what they give"
        classes, drift, waiting, work = mined.subvolumes(), mined.drift(), mined.waiting(), self._working()
        parts = [f"{mined.mode_now}: {mined.tomograms()} tomograms"]
        if classes:
            parts.append("sub-volumes " + " ".join(f"{name}:{n}" for name, n in classes.items()))
        if work is not None:
            parts.append(f"{work[0]} {work[1]}/{work[2]}")
        if drift.ratio > self.DRIFTED:
            parts.append(f"error {drift.ratio:.2f} x the session's")
        parts.append(f"failed {tally.failed} dropped {tally.dropped}")
        if waiting.reasons:
            why = " ".join(f"{reason} {n}" for reason, n in waiting.reasons.items())
            parts.append(f"waiting: {why}, oldest {waiting.oldest_s:.0f} s")
        if problems:
            parts.append("NOT READY: " + "; ".join(problems))
        return " │ ".join(parts)
