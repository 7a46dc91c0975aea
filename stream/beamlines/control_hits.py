"""What can be changed on a running ``xfel_hits``: threshold, writing, run, model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...models.bundle import BundleError
from ...models.hits.infer import CLASSES
from ..flow.metrics import Metrics
from ..live.page import JSON, Refused
from ..live.trial import Trial
from ..sinks.hdf5 import Hdf5Sink
from .candidates import Candidates
from .classify import Classify, Loaded, Shadow
from .hits import Keep


class HitLevers:
    """Implements ``Levers``. ``candidates``: bundles that can be tried; None where lit pixels decide alone.

    ``new_run``: gives runs a title, and begins one now or not (``Pipeline.new_run``).
    """

    kind: Final = "hits"

    def __init__(
        self,
        classify: Classify | None,
        candidates: Candidates | None,
        keep: Keep,
        files: Hdf5Sink,
        new_run: Callable[[str, bool], None],
        metrics: Metrics,
    ) -> None:
        self._classify, self._candidates = classify, candidates
        self._keep, self._files = keep, files
        self._new_run, self._metrics = new_run, metrics

    def threshold(self) -> JSON:
        """See ``Levers.threshold``; all null where lit pixels decide alone."""
        if self._classify is None:
            return {"value": None, "configured": None, "card": None, "floor": None}
        loaded, settings = self._classify.loaded, self._classify.settings
        card = loaded.bundle.card.threshold
        own = settings.threshold if loaded.name == settings.bundle else None
        return {"value": loaded.threshold, "configured": card if own is None else own, "card": card, "floor": 0.0}

    def check_threshold(self, value: float) -> None:
        """A probability."""
        self._model()
        if not 0 <= value <= 1:
            raise Refused(f"value: {value:g} is not a probability; give 0 to 1")

    def move(self, value: float) -> None:
        """From the next batch on."""
        self._model().move(value)

    def resume(self, value: float, _: float) -> None:
        """Nobody else moves it: as ``move``."""
        self.move(value)

    def pause(self, paused: bool) -> None:
        """Frames are judged and counted, and not kept."""
        self._keep.paused = paused

    def new_run(self, title: str, *, now: bool) -> None:
        """A file of its own, with this title."""
        self._new_run(title, now)

    def writing_to(self) -> str | None:
        """The CXI file that is open."""
        path = self._files.writing
        return None if path is None else path.name

    def further(self) -> JSON:
        """Nothing."""
        return {}

    def model(self) -> str:
        """The bundle in force."""
        return "" if self._classify is None else self._classify.loaded.name

    def configured_model(self) -> str:
        """The bundle that the configuration names."""
        return "" if self._classify is None else self._classify.settings.bundle

    def models(self) -> Sequence[str]:
        """Bundles of hit classifiers; none where there is no model to replace."""
        return [] if self._candidates is None else self._candidates.names()

    def try_out(self, bundle: str) -> Trial:
        """Load and warm up; it may take a few seconds, in which the stream goes on."""
        classify = self._model()
        assert self._candidates is not None, "where a model answers, others can be tried"
        found = self._candidates.load(bundle)
        settings = classify.settings
        # As at the start: a configured threshold is for the bundle that is configured.
        own = settings.threshold if bundle == settings.bundle else None
        try:
            loaded = Loaded.of(bundle, found.expect(classes=CLASSES), settings, own)
            loaded.runner.warm_up()
        except BundleError as error:
            raise Refused(error.detail) from None
        trial = Trial(bundle, loaded.threshold, self._metrics.operation)
        classify.shadow = Shadow(loaded, trial)
        return trial

    def drop(self) -> None:
        """The candidate is asked no more."""
        self._model().shadow = None

    def promote(self) -> None:
        """The candidate answers."""
        self._model().promote(self._metrics)

    def _model(self) -> Classify:
        if self._classify is None:
            raise Refused("no model answers here: lit pixels decide; set model.bundle in the configuration")
        return self._classify
