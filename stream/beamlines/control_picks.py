"""What can be changed on a running ``cryoem_picks``: threshold (also of what is stored), picking, title, model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from ...models.bundle import BundleError
from ..errors import plain
from ..flow.frame import BadData
from ..flow.metrics import Metrics
from ..live.page import JSON, Refused
from ..live.trial import Trial
from ..sinks.picks import again
from ..sinks.picks.files import lock
from ..sinks.picks.record import Record, now
from ..sinks.picks.sink import PickSink
from ..sinks.picks.threshold import Moved, move_of, read_moved, write_moved
from .candidates import Candidates
from .picking import Loaded, PickWork, Shadow

log = logging.getLogger(__name__)

CLOSE_S = 10.0


class Closing(Exception):
    """The daemon ends."""


class PickLevers:
    """Implements ``Levers``.

    ``refreshed`` is called when stored picks will change to a threshold; with None, in a thread of its own, when they
    have. ``new_run``: see ``Pipeline.new_run``.
    """

    kind: Final = "picks"

    def __init__(
        self,
        work: PickWork,
        candidates: Candidates,
        picks: PickSink,
        new_run: Callable[[str, bool], None],
        metrics: Metrics,
    ) -> None:
        self.refreshed: Callable[[float | None], None] = lambda _: None
        self._work, self._candidates, self._picks = work, candidates, picks
        self._new_run, self._metrics = new_run, metrics
        self._again: tuple[int, int] | None = None
        self._wanted: tuple[Loaded, float] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    def threshold(self) -> JSON:
        """See ``Levers.threshold``."""
        loaded, floor = self._work.loaded, self._work.settings.floor
        card = loaded.bundle.card.threshold
        return {"value": self._work.in_force, "configured": loaded.threshold, "card": card, "floor": floor}

    def check_threshold(self, value: float) -> None:
        """Candidates below the floor were not kept."""
        floor = self._work.settings.floor
        if not floor <= value <= 1:
            raise Refused(
                f"value: candidates below {floor:g} are not kept; give {floor:g} to 1, or set model.floor lower"
            )

    def move(self, value: float) -> None:
        """Tell the picker, and pick what is stored again: in the background, since there may be thousands."""
        self._announce(value)
        self._work.in_force = value
        self.refreshed(value)
        with self._lock:
            self._wanted = self._work.loaded, value
            if self._thread is None:
                self._thread = threading.Thread(target=self._pick_again, name="rethreshold", daemon=True)
                self._thread.start()

    def resume(self, value: float, since: float) -> None:
        """As ``move``, unless ``beamsieve rethreshold`` moved it later: ``threshold.json`` remembers by itself."""
        moved = self._work.moved(self._work.loaded)
        if moved is None or moved.threshold == value or not _is_later(moved, since):
            self.move(value)
        else:
            log.warning("threshold is %g, as it was moved at %s", moved.threshold, moved.when)

    def further(self) -> JSON:
        """``rethreshold``: how many of the stored micrographs are picked again; None when nothing is to be done."""
        done = self._again
        return {"rethreshold": None if done is None else {"done": done[0], "of": done[1]}}

    def wait(self, timeout: float) -> bool:
        """Until what is stored has the threshold in force; True when it has."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self._thread is None

    def close(self) -> None:
        """End picking again after the micrograph in work; the next start does the rest.

        A thread that is in HDF5 when the interpreter ends keeps its lock, and the process would hang for ever.
        """
        self._closing = True
        self.wait(CLOSE_S)

    def pause(self, paused: bool) -> None:
        """Micrographs wait in the folder: none is lost."""

    def new_run(self, title: str, *, now: bool) -> None:
        """The session goes on under this title."""
        self._new_run(title, now)

    def writing_to(self) -> str | None:
        """The session's folder."""
        return self._picks.directory.name

    def model(self) -> str:
        """The bundle in force."""
        return self._work.loaded.name

    def configured_model(self) -> str:
        """The bundle that the configuration names."""
        return self._work.settings.bundle

    def models(self) -> Sequence[str]:
        """Bundles of pickers."""
        return self._candidates.names()

    def try_out(self, bundle: str) -> Trial:
        """Load and warm up; it may take a few seconds, in which picking goes on."""
        found = self._candidates.load(bundle)
        try:
            loaded = Loaded.of(bundle, found.expect(classes=1), self._work.settings)
            loaded.picker.warm_up()
        except BundleError as error:
            raise Refused(error.detail) from None
        trial = Trial(bundle, loaded.threshold, self._metrics.operation)
        self._work.shadow = Shadow(loaded, trial)
        return trial

    def drop(self) -> None:
        """The candidate is asked no more."""
        self._work.shadow = None

    def promote(self) -> None:
        """The candidate picks."""
        self._work.promote()

    def _announce(self, value: float) -> None:
        """Move the threshold of the model in force, also where no micrograph of it is stored yet."""
        loaded, directory = self._work.loaded, self._picks.directory
        sha, configured = loaded.bundle.card.sha256, loaded.threshold
        try:
            with lock(directory):
                moved = read_moved(directory)
                mine = move_of(moved, sha, configured)
                # A band that was moved with the threshold stays.
                band = None if mine is None else mine.sd_range
                write_moved(
                    directory, [*(m for m in moved if m is not mine), Moved(sha, configured, value, band, now())]
                )
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from None

    def _pick_again(self) -> None:
        while True:
            with self._lock:
                wanted, self._wanted = self._wanted, None
                if wanted is None or self._closing:
                    self._thread = None
                    return
            self._again = (0, 0)
            try:
                self._pick_stored(*wanted)
            except Closing:
                log.warning("threshold %g: the next start picks the rest of what is stored again", wanted[1])
            except (OSError, BadData, ValueError) as error:
                said = plain(error) if isinstance(error, OSError) else str(error)
                log.error("threshold %g: not all that is stored was picked again: %s", wanted[1], said)
            except Exception:
                # The thread must come to its end, or no later threshold would reach what is stored.
                log.exception("threshold %g: not all that is stored was picked again, by a bug", wanted[1])
            self._again = None
            self.refreshed(None)

    def _pick_stored(self, loaded: Loaded, value: float) -> None:
        """What this model has picked at another threshold; scores of other models are on another scale."""
        sha, moved = loaded.bundle.card.sha256, self._work.moved(loaded)
        band = None if moved is None else moved.sd_range

        def stale(record: Record) -> bool:
            self._go_on()
            return record.micrograph.model_sha256 == sha and record.micrograph.threshold != value

        directory, settings = self._picks.directory, self._picks.settings
        again.rethreshold(directory, settings, value, band, self._progress, only=stale, announced=True)

    def _progress(self, _: str, done: int, of: int) -> None:
        self._again = (done, of)
        self._go_on()

    def _go_on(self) -> None:
        if self._closing:
            raise Closing


def _is_later(moved: Moved, since: float) -> bool:
    """Whether it was moved at this time (Unix seconds) or later; ``when`` has whole seconds."""
    try:
        return datetime.fromisoformat(moved.when).timestamp() >= int(since)
    except ValueError:
        return False
