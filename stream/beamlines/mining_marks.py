"""The groups of clusters that people name: ``groups.yaml``, followed while a daemon runs, and changed on its page."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

from ...models.tomograms.groups import Groups, GroupsError, Kind
from ..live.page import Refused
from ..sinks.tomograms.marks import GroupsFile

log = logging.getLogger(__name__)


class Marks:
    """The groups as they are. Any thread. ``known``: asks for the numbers of the clusters that there are now.

    While the file cannot be used, the groups before hold, and ``error`` says why. ``unread``: there were none before,
    so that nobody knows what is marked.
    """

    def __init__(self, directory: Path, known: Callable[[], Collection[int]]) -> None:
        self._file = GroupsFile(directory)
        self._known = known
        self._lock = threading.Lock()
        self.groups = Groups()
        self.error = ""
        self.unread = True

    def look(self) -> bool:
        """Read the file again if it is another; whether groups are others now."""
        with self._lock:
            before = self.groups
            # A file that is in the way is tried again each time: what hinders may be gone.
            if not self._file.changed() and not self.error:
                return False
            try:
                self.groups, error, self.unread = self._file.read(), "", False
            except GroupsError as wrong:
                error = "; ".join(wrong.mistakes[:3])
            except OSError as wrong:
                error = f"{self._file.path}: cannot be read ({wrong.strerror or wrong}); the groups before hold"
            if error and error != self.error:
                log.warning("%s", error)
            self.error = error
            return self.groups != before

    def followed(self, how: Callable[[Groups], Groups]) -> None:
        """Change the groups with the clusters that were made anew. Raises ``OSError``."""
        with self._lock:
            try:
                self.groups = self._file.change(how)
            except GroupsError as wrong:
                # A person edits it at this moment: what was split off is not marked then.
                log.warning("marks do not follow the clusters: %s", "; ".join(wrong.mistakes[:3]))
                self.error = "; ".join(wrong.mistakes[:3])

    def mark(self, ids: tuple[int, ...], group: str) -> None:
        """See ``MiningLevers.mark``."""
        self._expect(ids)
        if group not in self.groups.names:
            raise Refused(f"group: there is no group {group!r}; make it first")
        self._change(lambda groups: groups.mark(group, ids))

    def unmark(self, ids: tuple[int, ...]) -> None:
        """See ``MiningLevers.unmark``."""
        self._change(lambda groups: groups.unmark(ids))

    def new_group(self, name: str, kind: str) -> None:
        """See ``MiningLevers.new_group``."""
        self._change(lambda groups: groups.add(name, cast(Kind, kind)))

    def _expect(self, ids: tuple[int, ...]) -> None:
        known = self._known()
        gone = [str(number) for number in ids if number not in known]
        if gone:
            raise Refused(f"clusters: there is no cluster {', '.join(gone[:5])}; mark those that are shown now")

    def _change(self, how: Callable[[Groups], Groups]) -> None:
        with self._lock:
            try:
                self.groups = self._file.change(how)
                self.error = ""
            except GroupsError as wrong:
                raise Refused("; ".join(wrong.mistakes[:3])) from None
            except OSError as wrong:
                raise Refused(f"the mark cannot be kept: {wrong.strerror or wrong}") from None


def key_of(groups: Groups, network: str) -> str:
    """What a segmentation network is trained for, in short: the marks, and the network whose clusters they are of.

    Colours do not count, nor do groups' kinds: neither is trained.
    """
    told = [network, [[group.name, list(group.clusters)] for group in groups.groups]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
