"""Mining of tomograms, counted: sub-volumes by class, seconds by stage, the reconstruction's error and its drift.

``Metrics`` holds one of these where the items are tomograms; the stage that mines tells of each, the work in the
background of clusters, networks and trainings.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import Metric

from .families import Histogram, counter, gauge, histograms, single
from .yields import Waiting, collect_waiting

MODES = ("explore", "annotate")
UNMARKED, OTHER, MOST_CLASSES = "unmarked", "other", 20
#: What is made in the background: clusters, the autoencoder trained further, the network of segments.
TRAINED = ("clusters", "codes", "voxels")
#: ``worse``: it was not adopted; ``stopped``: the daemon ended, and the next one goes on with it.
OUTCOMES = ("done", "worse", "failed", "stopped")
SECONDS = (0.1, 0.3, 1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 450, 600, 900, 1800)
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class MinedTomogram:
    """What one tomogram gave.

    ``classes``: sub-volumes by the name of their class, the empty name for those of none. ``error``: mean squared error
    of their reconstruction, NaN where there are none; ``network``: the SHA-256 of what made it. ``seconds``: work by
    stage. ``voxels``: share of its voxels by class, empty where it was not segmented.
    """

    classes: Mapping[str, int]
    error: float
    seconds: Mapping[str, float]
    network: str = ""
    voxels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drift:
    """The error of reconstruction: the last tomogram's, and the median of the session's; NaN before the first."""

    last: float = math.nan
    median: float = math.nan

    @property
    def ratio(self) -> float:
        """The last one over the median; NaN where that is 0 or unknown."""
        return self.last / self.median if self.median > 0 else math.nan


class Mined:
    """Facts of tomograms. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._classes: Counter[str] = Counter({UNMARKED: 0})
        self._seconds: dict[str, Histogram] = {}
        self._errors: deque[float] = deque(maxlen=REMEMBERED)
        self._network = ""
        self._voxels: dict[str, float] = {}
        self._clusters: dict[str, int] = {}
        self._mode = MODES[0]
        self._model: tuple[str, str, str] | None = None
        # All of them from 0 on: what appears as 1 has not increased, and no alert would hear of the first failure.
        self._trainings: Counter[tuple[str, str]] = Counter({(w, o): 0 for w in TRAINED for o in OUTCOMES})
        self._tomograms = 0
        self._waiting = Waiting()

    # --- facts -------------------------------------------------------------------------------------------------

    def add(self, found: MinedTomogram) -> None:
        """A tomogram was mined."""
        with self._lock:
            self._tomograms += 1
            for name, n in found.classes.items():
                self._classes[self._label(name)] += n
            for stage, seconds in found.seconds.items():
                self._seconds.setdefault(stage, Histogram(SECONDS)).add([seconds])
            self._note_errors([found.error], found.network)
            if found.voxels:
                self._voxels = self._summed(found.voxels)

    def errors(self, errors: Sequence[float], network: str) -> None:
        """These were the errors of tomograms that an earlier daemon mined with this network, the oldest first."""
        with self._lock:
            self._note_errors(errors, network)

    def clusters(self, marks: Mapping[str, int]) -> None:
        """So many clusters there are now by the name of their class, the empty name for those of none."""
        with self._lock:
            self._clusters = {name: int(n) for name, n in self._summed(marks).items()}

    def mode(self, mode: str) -> None:
        """One of ``MODES`` from now on."""
        with self._lock:
            self._mode = mode

    def model(self, name: str, sha256: str, *, trained: bool) -> None:
        """The network that encodes from now on; ``trained``: on the session's own sub-volumes."""
        with self._lock:
            self._model = (name, sha256, "true" if trained else "false")

    def training(self, what: str, outcome: str) -> None:
        """Something of ``TRAINED`` ended as one of ``OUTCOMES``."""
        with self._lock:
            self._trainings[(what, outcome)] += 1

    def wait(self, waiting: Waiting) -> None:
        """These files wait now."""
        with self._lock:
            self._waiting = waiting

    # --- answers -----------------------------------------------------------------------------------------------

    def subvolumes(self) -> Mapping[str, int]:
        """Sub-volumes by class, as the metrics name classes."""
        with self._lock:
            return {name: n for name, n in self._classes.items() if n}

    def tomograms(self) -> int:
        """Tomograms that this daemon mined."""
        with self._lock:
            return self._tomograms

    def drift(self) -> Drift:
        """The error of reconstruction."""
        with self._lock:
            return Drift(self._errors[-1], float(np.median(self._errors))) if self._errors else Drift()

    def seconds(self) -> Mapping[str, float]:
        """Mean seconds per tomogram, by stage."""
        with self._lock:
            return {stage: times.total / max(1, int(times.counts.sum())) for stage, times in self._seconds.items()}

    def trainings(self) -> Mapping[tuple[str, str], int]:
        """What was made in the background, by (what, outcome)."""
        with self._lock:
            return {key: n for key, n in self._trainings.items() if n}

    def waiting(self) -> Waiting:
        """Which files wait, as told last."""
        with self._lock:
            return self._waiting

    @property
    def mode_now(self) -> str:
        """The mode, as told last."""
        with self._lock:
            return self._mode

    def clusters_now(self) -> Mapping[str, int]:
        """Clusters by class, as told last."""
        with self._lock:
            return dict(self._clusters)

    def collect(self) -> Iterable[Metric]:
        """Prometheus' view."""
        drift = self.drift()
        with self._lock:
            text = "Sub-volumes of tomograms, by the class of their cluster."
            yield counter("beamsieve_tomogram_subvolumes", text, single(self._classes), "class")
            text = "Work on one tomogram, by stage."
            yield histograms("beamsieve_tomogram_stage_seconds", text, "stage", self._seconds)
            text = "Clusters of sub-volumes, by the class that they are marked as."
            marks = {UNMARKED: 0, **self._clusters}
            yield gauge("beamsieve_tomogram_clusters", text, single(marks), "mark")
            modes = {mode: int(mode == self._mode) for mode in MODES}
            yield gauge("beamsieve_tomogram_mode", "1 for the mode of the session.", single(modes), "mode")
            if self._voxels:
                text = "Share of the voxels of the last tomogram that was segmented, by class."
                yield gauge("beamsieve_tomogram_voxels_fraction", text, single(self._voxels), "class")
            if self._model is not None:
                text = "The network that encodes sub-volumes; trained: on this session's own."
                yield gauge("beamsieve_tomogram_model_info", text, [(self._model, 1)], "name", "sha256", "trained")
            text = "What was made in the background, and how it ended."
            yield counter("beamsieve_tomogram_trainings", text, list(self._trainings.items()), "what", "outcome")
            yield from collect_waiting(self._waiting)
        text = "Share of the last tomogram's sub-volumes that the network does not reconstruct: 0 none, 1 all of it."
        yield gauge("beamsieve_tomogram_reconstruction_error", text, [((), drift.last)])
        text = "That error over the session's median: its drift tells that sample or microscope changed."
        yield gauge("beamsieve_tomogram_reconstruction_error_ratio", text, [((), drift.ratio)])

    # --- inside ------------------------------------------------------------------------------------------------

    def _note_errors(self, errors: Sequence[float], network: str) -> None:
        if network != self._network:
            # Errors of two networks cannot be compared.
            self._errors.clear()
            self._network = network
        self._errors.extend(error for error in errors if math.isfinite(error))

    def _label(self, name: str) -> str:
        """A bounded label: the first names have their own, the others share one."""
        if not name:
            return UNMARKED
        if name not in self._names:
            if len(self._names) >= MOST_CLASSES:
                return OTHER
            self._names.append(name)
        return name

    def _summed(self, values: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, value in values.items():
            label = self._label(name)
            found[label] = found.get(label, 0) + value
        return found
