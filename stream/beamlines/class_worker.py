"""Sorts a session's particles into 2-D classes while it runs, in a thread that gives way to those that pick.

    records on the disk ─▶ book in force ─▶ snapshot for the page · classes.h5 · session.h5 · exports
           └─▶ a pass: a new book of all records, which takes over at once when it is complete

One thread owns all of it (``ClassWork``, ``Keeping``): it does one piece of work at a time, a fraction of a second,
and looks around between them. Others put words into ``_told`` (names of micrographs, bounded), or read what is frozen
(``current``); marks have a lock of their own. Only new centres are made in a further thread, from a sample that nobody
changes, and a network is trained in a process of its own.

    waiting for the folder's lock ─▶ working ──(``finish``)──▶ what is left, within a time ─▶ ended
                                        └──(a bug)──▶ failed: picking goes on; the next start does what is left
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from ...models.bundle import BundleError
from ..errors import plain
from ..live.class_view import Classes
from ..live.page import Refused
from .class_keeping import Keeping
from .class_passes import be_modest
from .class_watch import STOPPED_S
from .class_work import LOOK_S, ClassWork

log = logging.getLogger(__name__)

TOLD = 4096
IDLE_S = 0.5
CLOSE_S = 60.0


class LiveClasses:
    """Implements ``live.class_view.ClassLevers`` and ``class_watch.Hears``."""

    def __init__(self, work: ClassWork, keeping: Keeping, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._keeping, self._clock = work, keeping, clock
        self._told: deque[tuple[str, int, float]] = deque()
        self._something = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="classes", daemon=True)
        work.wake = self.wake

    # For the daemon

    def open(self) -> None:
        """Begin; more than once does no harm."""
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """There is something to do. Any thread."""
        self._something.set()

    def tell(self, name: str, count: int) -> None:
        """See ``Hears``. Any thread; what does not fit is found by looking at the folder."""
        if count and len(self._told) < TOLD:
            self._work.facts.told(count)
            self._told.append((name, count, self._clock()))
            self.wake()

    def finish(self, seconds: float) -> None:
        """See ``Hears``. Any thread."""
        if self._deadline is None:
            self._deadline = self._clock() + seconds
        self.wake()

    def close(self) -> bool:
        """Wait until all is written and no thread is left; says whether it ever ran.

        A thread that is in HDF5 when Python ends would hang for ever.
        """
        self.finish(STOPPED_S)
        if self._thread.ident is None:
            return False
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.error("2-D classes: still writing after %.0f s; the next start does the rest", CLOSE_S)
        return True

    # For the page

    def current(self) -> Classes:
        """See ``ClassLevers``."""
        return self._keeping.current()

    def mark(self, id: int, mark: str, by: str) -> None:
        """See ``ClassLevers``."""
        view = next((view for view in self.current().classes if view.id == id), None)
        if view is None:
            raise Refused(f"id: there is no class {id} any more; mark one that is shown now")
        try:
            self._work.marks.put(id, mark, by, view.since)
        except OSError as error:
            raise Refused(f"the mark cannot be kept: {error.strerror or error}") from None
        self.wake()

    # The thread

    def _run(self) -> None:
        be_modest()
        try:
            if self._begin():
                self._go_on()
                self._keeping.last()
        except BundleError as error:
            self._fail(error.detail)
        except OSError as error:
            log.error("2-D classes: %s; picking goes on, and the next start classifies the rest", plain(error))
            self._fail(plain(error))
        except Exception as error:
            # What shows classes must never cost a micrograph.
            log.exception("2-D classes: a bug; picking goes on, and the next start classifies the rest")
            self._fail(f"a bug: {plain(error) or type(error).__name__}")
        finally:
            self._end()

    def _begin(self) -> bool:
        """Take hold of the folder, as soon as no other daemon classifies there."""
        while not self._work.store.claim():
            self._keeping.say("lock", "another daemon classifies the particles of this folder")
            self._keeping.publish()
            if self._deadline is not None:
                return False
            self._something.wait(LOOK_S)
            self._something.clear()
        self._keeping.say("lock", "")
        self._work.begin()
        self._keeping.publish()
        return True

    def _go_on(self) -> None:
        finishing = False
        while True:
            if self._deadline is not None and not finishing:
                finishing = True
                self._finish(self._deadline)
            while self._told:
                self._work.hear(*self._told.popleft())
            worked = self._work.step()
            self._keeping.keep_up()
            if finishing and self._is_over(worked):
                return
            if not worked:
                self._something.wait(IDLE_S)
                self._something.clear()

    def _finish(self, deadline: float) -> None:
        if deadline - self._clock() <= STOPPED_S:
            self._work.hurry()
        self._work.look()

    def _is_over(self, worked: bool) -> bool:
        assert self._deadline is not None
        if not worked and self._work.idle and not self._told:
            return True
        if self._clock() < self._deadline:
            return False
        left = self._work.waiting()
        if left:
            log.warning("2-D classes: %d particles are left for the next start", left)
        return True

    def _fail(self, why: str) -> None:
        self._work.facts.failed("bug")
        self._keeping.fail(why)
        log.error("2-D classes: %s", why)

    def _end(self) -> None:
        try:
            self._work.end()
        except Exception:
            log.exception("2-D classes: at the end")
