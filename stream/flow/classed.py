"""2-D classes, counted: classes and particles by mark, resolutions, seconds from pick to class, passes, failures.

``Metrics`` holds one of these where particles are classified; the worker that does so tells the facts.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import Metric

from .families import Histogram, counter, gauge, histogram, single

MARKS = ("good", "bad", "unmarked")
#: Why all particles are gone over again: the first classes, many more particles, another network, a start without what
#: the last one knew, records that changed, another size of the particles' box.
PASSES = ("first", "growth", "model", "restart", "changed", "box")
#: What was not classified, or did not work: images without contrast or numbers, another box than the others, a damaged
#: record, a file that cannot be written, a training that ended with an error, a bug.
FAILURES = ("image", "box", "record", "file", "tuning", "bug")
SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 900)
REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """The classes now: how many, and their particles, by mark (``MARKS``); resolutions in Å, NaN where not known.

    ``waiting``: particles that were picked and are not looked at yet, of those that were ``heard`` of so far (see
    ``Classed.told``). ``unlabelled``: all without a class, with those.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    particles: Mapping[str, int] = field(default_factory=dict)
    best_a: float = float("nan")
    median_a: float = float("nan")
    waiting: int = 0
    unlabelled: int = 0
    heard: int = 0


class Classed:
    """Facts of 2-D classes. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = ClassCounts()
        self._told_of = 0
        self._seconds = Histogram(SECONDS)
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._passes: Counter[str] = Counter(dict.fromkeys(PASSES, 0))
        self._failures: Counter[str] = Counter(dict.fromkeys(FAILURES, 0))
        self._model: tuple[str, str, str] | None = None

    def told(self, particles: int) -> None:
        """Particles were picked, which the worker, busy with others, will hear of: they wait from now on."""
        with self._lock:
            self._told_of += particles

    def counted(self, counts: ClassCounts) -> None:
        """The classes are these now."""
        with self._lock:
            self._counts = counts

    def classified(self, seconds: Sequence[float]) -> None:
        """Particles came into a class so many seconds after they were picked, one number each."""
        with self._lock:
            self._seconds.add(seconds)
            self._recent.extend(seconds)

    def model(self, name: str, sha256: str, *, tuned: bool) -> None:
        """The network that denoises from now on; ``tuned``: it was trained on the session's own particles."""
        with self._lock:
            self._model = (name, sha256, "true" if tuned else "false")

    def passed(self, why: str) -> None:
        """All particles were gone over again; ``why`` is one of ``PASSES``."""
        with self._lock:
            self._passes[why] += 1

    def failed(self, reason: str, n: int = 1) -> None:
        """See ``FAILURES``; ``n``: particles, where it is about particles."""
        with self._lock:
            self._failures[reason] += n

    def counts(self) -> ClassCounts:
        """The classes, as told last."""
        with self._lock:
            return self._counts

    def waiting(self) -> int:
        """Particles that were picked and are not looked at yet."""
        with self._lock:
            return self._counts.waiting + max(0, self._told_of - self._counts.heard)

    def pick_to_class_s(self) -> float:
        """Median of the last few thousand times from pick to class, in seconds; NaN before the first."""
        with self._lock:
            return float(np.median(self._recent)) if self._recent else float("nan")

    def passes(self) -> Mapping[str, int]:
        """Passes by why."""
        with self._lock:
            return dict(self._passes)

    def failures(self) -> Mapping[str, int]:
        """Failures by reason, those that there were."""
        with self._lock:
            return {reason: n for reason, n in self._failures.items() if n}

    def collect(self) -> Iterable[Metric]:
        """Prometheus' view."""
        waiting = self.waiting()
        with self._lock:
            now, model = self._counts, self._model
            passes, failures = dict(self._passes), dict(self._failures)
            seconds = histogram("beamsieve_pick_to_class_seconds", "From pick to class, per particle.", self._seconds)
        marks = dict.fromkeys(MARKS, 0)
        yield gauge("beamsieve_classes", "2-D classes, by mark.", single({**marks, **now.classes}), "mark")
        text = "Particles in 2-D classes, by the mark of their class."
        yield gauge("beamsieve_class_particles", text, single({**marks, **now.particles}), "mark")
        text = "Resolution of class averages (Fourier ring correlation of half sets)."
        which = [(("best",), now.best_a), (("median",), now.median_a)]
        yield gauge("beamsieve_class_resolution_angstrom", text, which, "which")
        text = "Particles that were picked and not yet classified."
        yield gauge("beamsieve_class_waiting_particles", text, [((), waiting)])
        yield seconds
        if model is not None:
            text = "The network that denoises particles; tuned: on this session's own."
            yield gauge("beamsieve_class_model_info", text, [(model, 1)], "name", "sha256", "tuned")
        text = "Passes over all particles, by why."
        yield counter("beamsieve_class_passes", text, single(passes), "why")
        text = "Particles that got no class, and what else went wrong, by reason."
        yield counter("beamsieve_class_failures", text, single(failures), "reason")
