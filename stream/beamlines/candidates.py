"""What the controls and pages of both beamlines need: bundles that can be tried, and earlier marks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...models.bundle import Bundle, BundleError, Card, available, load_bundle, read_card
from ..flow.metrics import Metrics
from ..flow.settings import ConfigError, Where
from ..live.marks import Marks
from ..live.page import Refused

log = logging.getLogger(__name__)

FOLDER = "models"
FRESH_S = 10.0


class Candidates:
    """Bundles of a task that lie in ``directory/models``, in BEAMSIEVE_MODELS, or ship; and the configured one.

    A person chooses among their names: no path is ever taken from a browser.
    """

    def __init__(
        self, task: str, directory: Path, configured: str, path: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._task, self._folder = task, directory / FOLDER
        self._configured = {configured: path}
        self._clock = clock
        self._found: dict[str, Path] = {}
        self._looked = -FRESH_S

    def names(self) -> Sequence[str]:
        """Their names; looked for again every few seconds."""
        if self._clock() - self._looked >= FRESH_S:
            self._looked = self._clock()
            self._found = {**self._configured, **self._look()}
        return list(self._found)

    def load(self, name: str) -> Bundle:
        """The bundle of that name. Raises ``Refused`` where it is not there, or does not hold."""
        path = {**self._configured, **self._look()}.get(name)
        if path is None:
            raise Refused(f"{name}: is not there any more")
        try:
            return load_bundle(path).expect(task=self._task)
        except BundleError as error:
            raise Refused(error.detail) from None

    def _look(self) -> dict[str, Path]:
        found = {}
        for name, path in available(self._folder).items():
            try:
                if read_card(path).task == self._task:
                    found[name] = path
            except BundleError as error:
                log.debug("%s", error.detail)
        return found


def marks_in(directory: Path, where: Where) -> Marks:
    """What reviewers said in this folder before. Raises ``ConfigError`` where it cannot be read."""
    try:
        return Marks(directory)
    except OSError as error:
        why = f"{directory}: {error.strerror or error}; name a folder that you may read and write"
        raise ConfigError([where("files", "directory") + why]) from None


def tell_model(metrics: Metrics, card: Card, device: str, dtype: str) -> None:
    """Say which model answers from here on, on which device and in which precision."""
    metrics.model(name=card.name, version=card.version, hash=card.sha256[:12], device=device, dtype=dtype)
