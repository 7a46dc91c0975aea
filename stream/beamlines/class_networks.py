"""Which network denoises a session's particles: the configured one, or one that was trained further on the session."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ...models.bundle import BundleError
from ..flow.classed import Classed
from ..live.class_view import Tuning as Shown
from ..sinks.picks.classes_file import ClassTables, DenoisedBy
from .class_book import Denoises
from .class_settings import Loaded
from .class_tuning import Outcome, Tuning

log = logging.getLogger(__name__)


class Networks:
    """For the worker's thread. ``base``: what the configuration names; ``load``: another one by its path, warm.

    ``current``: in force; ``wanted``: shall take over, once all particles were gone over with it. ``models``: all that
    labels were made with, in the order of ``classes.h5``. ``tuning``: None trains none.
    """

    def __init__(
        self,
        base: Loaded,
        load: Callable[[str], Loaded],
        facts: Classed,
        tuning: Tuning | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.base = self.current = base
        self.wanted: Loaded | None = None
        self.models: list[DenoisedBy] = []
        self._warm = False
        self._load, self._facts, self._tuning, self._wall = load, facts, tuning, wall

    @property
    def tuned(self) -> bool:
        """Whether the one in force was trained on this session."""
        return self.current.denoiser.sha256 != self.base.denoiser.sha256

    def warm_up(self) -> None:
        """Get the one in force ready, if it is not yet. Raises ``BundleError``."""
        if not self._warm:
            log.info("2-D classes: %s: %s", self.current.denoiser.name, self.current.denoiser.warm_up())
            self._warm = True

    def restore(self, tables: ClassTables) -> list[str]:
        """Go on with what the last daemon used, unless the configuration names another since; says what happened.

        Raises ``KeyError``, ``ValueError``, ``TypeError`` for tables that are none.
        """
        self.models = list(tables.models)
        if not self.models or tables.facts["configured"] != self.base.denoiser.sha256:
            return []
        last = self.models[int(tables.facts["model"])]
        if last.sha256 != self.base.denoiser.sha256:
            try:
                found = self._load(last.path)
            except BundleError as error:
                return self._missed(last, error.detail)
            if found.denoiser.sha256 != last.sha256:
                return self._missed(last, f"{last.path}: is another network now")
            self.current = found
        left = None if self._tuning is None else self._tuning.left_over(last.sha256)
        return [] if left is None else [self._judged(left)]

    def number_of(self, loaded: Loaded) -> int:
        """Its number among ``models``, which it is added to."""
        for number, model in enumerate(self.models):
            if model.sha256 == loaded.denoiser.sha256:
                return number
        path = str(loaded.path.absolute())
        self.models.append(DenoisedBy(loaded.denoiser.name, loaded.denoiser.sha256, self._wall(), path))
        return len(self.models) - 1

    def adopt(self, denoiser: Denoises) -> None:
        """All particles were gone over with this one."""
        if self.wanted is not None and self.wanted.denoiser is denoiser:
            self.current, self.wanted = self.wanted, None
            self.tell()

    def tune(self, particles: int) -> list[str]:
        """Look after the training, and begin one if that is due with so many particles; says what happened."""
        if self._tuning is None:
            return []
        outcome = self._tuning.poll()
        said = [] if outcome is None else [self._judged(outcome)]
        if self.wanted is None and self._tuning.due(particles):
            try:
                self._tuning.start(self.current.path)
                said.append("Training on this session's particles has begun.")
            except OSError as error:
                self._tuning.give_up()
                said.append(self._judged(Outcome("failed", f"training cannot be started: {error}")))
        return said

    def shown(self) -> Shown | None:
        """The training, for the page."""
        return None if self._tuning is None else self._tuning.state()

    def close(self) -> None:
        """End a training; the next start goes on with it."""
        if self._tuning is not None:
            self._tuning.close()

    def _judged(self, outcome: Outcome) -> str:
        text = f"{outcome.text[:1].upper()}{outcome.text[1:]}."
        if outcome.path is not None:
            try:
                self.wanted = self._load(str(outcome.path))
                text = f"A better network: {outcome.text}; it is adopted."
            except BundleError as error:
                outcome, text = Outcome("failed", error.detail), f"What was trained cannot be used: {error.detail}."
        if outcome.kind == "failed":
            self._facts.failed("tuning")
        log.log(logging.WARNING if outcome.kind == "failed" else logging.INFO, "2-D classes: %s", text)
        return text

    def _missed(self, last: DenoisedBy, why: str) -> list[str]:
        log.warning("2-D classes: %s; the configured network goes on", why)
        return [f"The network {last.name} is not there any more; {self.base.denoiser.name} goes on."]

    def tell(self) -> None:
        """Say which one denoises."""
        denoiser = self.current.denoiser
        self._facts.model(denoiser.name, denoiser.sha256, tuned=self.tuned)
