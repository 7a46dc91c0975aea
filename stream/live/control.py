"""What a person may change on a running daemon, the same for every beamline: checked, written down, then done."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from ..flow.metrics import Metrics
from ..flow.operation import LONGEST_TITLE
from .changes import Changes
from .page import JSON, Refused
from .trial import Trial

log = logging.getLogger(__name__)

DAEMON = "beamsieve"


class Levers(Protocol):
    """What a beamline does when somebody changes something. What raises ``Refused`` has changed nothing."""

    @property
    def kind(self) -> Literal["hits", "picks"]:
        """What a verdict is about."""

    def threshold(self) -> JSON:
        """``value`` in force, ``configured``, ``card`` (the model's own), ``floor``: no threshold below it."""

    def check_threshold(self, value: float) -> None:
        """Raises ``Refused`` where there can be no such threshold."""

    def move(self, value: float) -> None:
        """From now on this threshold holds."""

    def resume(self, value: float, since: float) -> None:
        """Likewise at the start: it was moved there before, at ``since`` (Unix seconds), and not on the page since."""

    def pause(self, paused: bool) -> None:
        """Keep nothing from now on, or keep again."""

    def new_run(self, title: str, *, now: bool) -> None:
        """Give runs this title; ``now``: begin one."""

    def writing_to(self) -> str | None:
        """The name of the file being written, if one is."""

    def further(self) -> JSON:
        """Further fields of the snapshot."""

    def model(self) -> str:
        """The bundle in force, as a configuration would name it; empty where no model answers."""

    def configured_model(self) -> str:
        """The bundle that the configuration names."""

    def models(self) -> Sequence[str]:
        """Bundles that can be tried."""

    def try_out(self, bundle: str) -> Trial:
        """Load this one of ``models``, and let it judge beside the one in force. Takes seconds. Raises ``Refused``."""

    def drop(self) -> None:
        """The candidate judges no more."""

    def promote(self) -> None:
        """The candidate is the model in force from here on."""


class Control:
    """Implements ``Controls`` with a beamline's levers. ``act`` is called by one thread at a time, ``state`` by any."""

    def __init__(self, levers: Levers, metrics: Metrics, changes: Changes) -> None:
        self._levers, self._metrics, self._changes = levers, metrics, changes
        self._trial: Trial | None = None
        self._loading = ""
        self._error: tuple[str, str] | None = None
        self._actions: Mapping[str, Callable[[Mapping[str, Any], str], None]] = {
            "threshold": self._threshold,
            "pause": self._pause,
            "run": self._run,
            "candidate": self._candidate,
            "promote": self._promote,
            "dismiss": self._dismiss,
        }

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """See ``Controls.act``."""
        if action not in self._actions:
            raise Refused(f"{action}: there is no such action; there are {', '.join(self._actions)}")
        self._actions[action](body, by or "somebody")
        return self.state()

    def state(self) -> JSON:
        """See ``Controls.state``."""
        operation = self._metrics.operation
        name, title, since = operation.current_run
        return {
            "threshold": self._levers.threshold(),
            "writing": {"paused": operation.is_paused, "file": self._levers.writing_to()},
            "run": {"name": name, "title": title, "since": since},
            "model": self._metrics.which_model(),
            "models": list(self._levers.models()),
            "candidate": self._state_of_candidate(),
            "changes": self._changes.recent(),
            **self._levers.further(),
        }

    def restore(self) -> None:
        """Do again what was changed before the daemon was started, where the configuration still says the same.

        The model comes first: a threshold belongs to it. What cannot be done again is said in the log, and the
        configuration holds.
        """
        model = self._changes.standing("model", self._levers.configured_model())
        if model is not None and model["new"] != self._levers.model():
            self._again(model, self._adopt)
        # A model that was promoted later came with its own threshold, also where it is the same model again.
        threshold = self._changes.standing("threshold", self._key(), ended_by="model")
        if threshold is not None:
            since = float(threshold.get("time") or 0.0)
            self._again(threshold, lambda value: self._resume(self._number(value), since))
        pause = self._changes.standing("pause")
        if pause is not None and pause["new"]:
            self._again(pause, lambda _: self._set_paused(True))
        title = self._changes.standing("run")
        if title is not None:
            self._again(title, lambda value: self._levers.new_run(str(value), now=False))
        # Told only now: until here it was one that nothing was judged by.
        self._metrics.operation.threshold = lambda: self._levers.threshold()["value"]

    def _resume(self, value: float, since: float) -> None:
        # The floor may have been raised meanwhile.
        self._levers.check_threshold(value)
        self._levers.resume(value, since)

    def _again(self, change: JSON, do: Callable[[Any], None]) -> None:
        try:
            do(change["new"])
            log.warning("%s is %r, as %s changed it before this start", change["what"], change["new"], change["by"])
        except Refused as error:
            log.error("%s: cannot be %r again: %s; the configuration holds", change["what"], change["new"], error)
        except Exception:
            # Or no start would succeed until somebody edits the log.
            log.exception("%s: cannot be %r again; the configuration holds", change["what"], change["new"])

    # Actions

    def _threshold(self, body: Mapping[str, Any], by: str) -> None:
        value, old = self._number(body.get("value")), self._levers.threshold()["value"]
        self._levers.check_threshold(value)
        self._changes.note("threshold", by, old, value, self._key())
        try:
            self._levers.move(value)
        except Refused:
            # It was written down and not made: a restart would make it.
            self._changes.note("threshold", by, value, old, self._key())
            raise

    def _key(self) -> JSON:
        """What a moved threshold belongs to: the model in force, and the threshold it would have by configuration.

        With the model's hash: another training under the same name has scores of its own.
        """
        configured = self._levers.threshold()["configured"]
        return {"model": self._levers.model(), "hash": self._metrics.which_model().get("hash"), "threshold": configured}

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Refused("value: give the threshold as a number")
        return float(value)

    def _pause(self, body: Mapping[str, Any], by: str) -> None:
        paused = body.get("paused")
        if not isinstance(paused, bool):
            raise Refused("paused: give true or false")
        if paused != self._metrics.operation.is_paused:
            self._changes.note("pause", by, not paused, paused)
            self._set_paused(paused)

    def _set_paused(self, paused: bool) -> None:
        self._levers.pause(paused)
        self._metrics.operation.paused(paused)

    def _run(self, body: Mapping[str, Any], by: str) -> None:
        title = body.get("title")
        if not isinstance(title, str) or len(title) > LONGEST_TITLE or not title.isprintable():
            raise Refused(f"title: give one line of at most {LONGEST_TITLE} printable characters")
        self._changes.note("run", by, self._metrics.operation.current_run[1], title.strip())
        self._levers.new_run(title.strip(), now=True)

    def _candidate(self, body: Mapping[str, Any], by: str) -> None:
        bundle = body.get("bundle")
        if not isinstance(bundle, str) or bundle not in self._levers.models():
            raise Refused(f"bundle: choose one of {', '.join(self._levers.models()) or 'none: there are no models'}")
        old = None if self._trial is None else self._trial.bundle
        self._loading, self._error = bundle, None
        try:
            trial = self._levers.try_out(bundle)
        except Refused as error:
            self._error = (bundle, str(error))
            raise
        finally:
            self._loading = ""
        self._trial = trial
        try:
            self._changes.note("candidate", by, old, bundle)
        except Refused as error:
            self._levers.drop()
            self._trial = None
            raise Refused(f"{error}; no candidate is tried now") from None

    def _promote(self, _: Mapping[str, Any], by: str) -> None:
        trial = self._trial
        if trial is None:
            raise Refused("there is no candidate; choose one, and let it run beside the model in force first")
        failed = trial.error if self._error is None else f"{self._error[0]}: {self._error[1]}"
        if failed is not None:
            # The page shows a failure: whoever promotes does not mean what was tried before it.
            raise Refused(f"the candidate failed ({failed}); dismiss it, and choose another")
        self._changes.note("model", by, self._levers.model(), trial.bundle, self._levers.configured_model())
        self._levers.promote()
        self._trial = None

    def _dismiss(self, _: Mapping[str, Any], by: str) -> None:
        self._error = None
        if self._trial is not None:
            self._changes.note("candidate", by, self._trial.bundle, None)
            self._levers.drop()
            self._trial = None

    def _adopt(self, bundle: Any) -> None:
        """Take a bundle into force without a trial, as it was before the restart."""
        if bundle not in self._levers.models():
            raise Refused("there is no such bundle any more")
        self._levers.try_out(str(bundle))
        self._levers.promote()

    def _state_of_candidate(self) -> JSON | None:
        if self._loading:
            return _only_named(self._loading, "loading", None)
        if self._error is not None:
            return _only_named(self._error[0], "failed", self._error[1])
        trial = self._trial
        return None if trial is None else trial.state(self._levers.kind)


def _only_named(bundle: str, state: str, error: str | None) -> JSON:
    nothing = dict.fromkeys(("threshold", "frames", "share", "agree", "rate", "current_rate", "table"))
    return {"bundle": bundle, "state": state, "error": error, **nothing}
