"""The live page of ``xfel_hits``: hit rates, frames, powder, scores and what-if, review, and what a person changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import __version__
from ...models.hits.infer import CLASSES
from ..flow.frame import Frame
from ..flow.metrics import Metrics
from ..live.common import Common
from ..live.frame_views import Array, Drawn, FrameViews
from ..live.hits_watch import HitsWatch
from ..live.marks import Marks
from ..live.page import JSON, Blob, Controls, Picture
from ..live.powder import Powder
from ..live.review import Review, verdicts_in
from ..live.scores import Scores
from ..live.shots import BUDGET, Shot, Shots
from ..live.window import Window
from .looks import Looks, stacked

LATEST = 10


class HitsPage:
    """Implements ``Page``. ``watch`` goes into the pipeline's sinks.

    ``directory``: where files and marks go. ``to_input``: what the model sees of a frame, (size, size) photons; None
    where lit pixels decide alone. ``looks``: draws the whole detector; without it modules are stacked, and masks of
    the run are not shown. ``budget``: bytes of frames kept to be enlarged and marked.
    """

    beamline = "xfel_hits"

    def __init__(
        self,
        *,
        metrics: Metrics,
        controls: Controls,
        marks: Marks,
        directory: Path,
        to_input: Callable[[Frame], Array] | None,
        labels: Sequence[str] = CLASSES,
        looks: Looks | None = None,
        budget: int = BUDGET,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics, self._controls, self._directory = metrics, controls, directory
        self._labels = tuple(labels)
        self._clock = clock
        self.common = Common(metrics, clock=clock, wall=wall)
        self._window = Window(clock(), round(wall() - clock()))
        self._scores = Scores(lit=to_input is None)
        # Marks go by ids, also after a restart: what was marked yesterday must not be taken for this.
        self._shots = Shots(np.base_repr(round(wall() * 1000), 36).lower(), budget)
        self._powder = Powder(clock=clock)
        self._views = FrameViews(looks or _stacked, to_input, labels, from_below=looks is not None and looks.from_below)
        self._review = Review(marks, self._shots.get, self._pixels, clock=clock, wall=wall)
        judge = "prescreen" if to_input is None else "model"
        parts = (self.common, self._window, self._scores, self._shots, self._powder)
        self.watch = HitsWatch(*parts, judge=judge, clock=clock)

    def facts(self) -> JSON:
        """See ``Page.facts``."""
        return {
            "beamline": self.beamline,
            "version": __version__,
            "labels": list(self._labels),
            "directory": str(self._directory),
            "points": self._window.points(self._clock()),
            "numbers": {},
            "rows_version": 0,
        }

    def snapshot(self) -> JSON:
        """See ``Page.snapshot``."""
        now, state = self._clock(), self._controls.state()
        what_if = self._scores.what_if(now)
        totals, model = self.watch.totals, self._model()
        curve = self._review.curve(what_if["threshold"], totals, model)
        waiting = self._shots.waiting(self._review.marked())
        threshold = state["threshold"]["value"]
        return {
            **self.common.snapshot(),
            **state,
            "hits": {"windows": self._window.windows(now)},
            "classes": self.common.classes(),
            "points": self._window.points(now, LATEST),
            "powder": self._powder.state(),
            "scores": self._scores.histogram(now),
            "what_if": {
                **what_if,
                "purity": [one and one.triple() for one in curve.purity],
                "recall": [one and one.triple() for one in curve.recall],
            },
            "review": self._review.state(waiting, threshold, totals, model),
        }

    def pictures(self, after: int) -> Sequence[Picture]:
        """See ``Page.pictures``."""
        return self._shots.pictures(after, self._views.render)

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:  # noqa: ARG002
        """``frame/<id>``, and ``powder/<hits-sum|hits-max|misses-sum|misses-max>``. ``query`` is not used."""
        if kind == "powder":
            return self._views.powder(self._powder, name)
        shot = self._shots.get(name) if kind == "frame" else None
        return None if shot is None else self._views.frame(shot)

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """``mark``: see ``Review.mark``; everything else is for the controls."""
        if action != "mark":
            return self._controls.act(action, body, by)
        model = self._model()
        for right in self._review.mark(verdicts_in(body), by, model):
            self._metrics.operation.marked(right)
        waiting = self._shots.waiting(self._review.marked())
        threshold = self._controls.state()["threshold"]["value"]
        return {"review": self._review.state(waiting, threshold, self.watch.totals, model)}

    def _model(self) -> str:
        """The hash of the model in force, as the last frame has it; before the first, as far as metrics tell it."""
        return self.watch.model or self._metrics.which_model().get("hash", "")

    def _pixels(self, shot: Shot) -> Array | None:
        """What the model saw, to train from: photons, float32 or uint16."""
        frame = shot.frame
        return shot.view if shot.view is not None or frame is None else self._views.seen(frame)


def _stacked(data: Array, mask: npt.NDArray[np.uint32] | None, run: str) -> Drawn:  # noqa: ARG001
    return stacked(data, mask)
