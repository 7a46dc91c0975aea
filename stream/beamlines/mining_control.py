"""What can be changed on a running ``cryoet_mining`` beside its groups: pause, and the run's title."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from ..live.page import JSON, Refused
from ..live.trial import Trial
from .mining_work import MineWork


class MineLevers:
    """Implements ``live.control.Levers``. ``new_run``: see ``Pipeline.new_run``; ``directory``: where files go."""

    kind: Final = "picks"

    def __init__(self, work: MineWork, new_run: Callable[[str, bool], None], directory: str) -> None:
        self._work, self._new_run, self._directory = work, new_run, directory

    def threshold(self) -> JSON:
        """See ``Levers.threshold``. In standard deviations of the difference of Gaussians."""
        value = self._work.settings.threshold
        return {"value": value, "configured": value, "card": value, "floor": value}

    def check_threshold(self, value: float) -> None:
        """Tomograms that were mined would have to be mined again."""
        raise Refused(f"{value:g}: the picker's threshold is not changed while it runs; set model.threshold")

    def move(self, value: float) -> None:
        """See ``check_threshold``."""
        self.check_threshold(value)

    def resume(self, value: float, since: float) -> None:  # noqa: ARG002
        """See ``check_threshold``."""
        self.check_threshold(value)

    def pause(self, paused: bool) -> None:
        """Tomograms wait in the folder: none is lost."""

    def new_run(self, title: str, *, now: bool) -> None:
        """The session goes on under this title."""
        self._new_run(title, now)

    def writing_to(self) -> str | None:
        """The tomogram in work."""
        now = self._work.telling.now
        return None if now is None else now[0]

    def further(self) -> JSON:
        """``work``: what is done with the tomogram in work, and how far it is; None where there is none."""
        now = self._work.telling.now
        return {"work": None if now is None else {"text": now[0], "done": now[1], "of": now[2]}}

    def model(self) -> str:
        """The bundle in force."""
        return self._work.benches.now.codec.name

    def configured_model(self) -> str:
        """The bundle that the configuration names."""
        return self._work.settings.bundle

    def models(self) -> Sequence[str]:
        """None: a network brings codes of its own, and all clusters anew; it is set in the configuration."""
        return ()

    def try_out(self, bundle: str) -> Trial:
        """See ``models``."""
        self._refuse(bundle)

    def drop(self) -> None:
        """Nothing is tried out."""

    def promote(self) -> None:
        """Nothing is tried out."""

    def _refuse(self, bundle: str) -> NoReturn:
        raise Refused(f"{bundle}: a network is not changed while it runs; set model.bundle")
