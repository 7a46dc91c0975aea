"""When a file is complete: it settled on our own clock, and it holds what its header and its companions promise.

A file that was allocated in full and is still being filled opens without complaint, and so does a movie that was cut
between two frames. So size alone decides nothing: the header's size is compared with the file's, the tail must not be
all zeros, and the frames must be as many as the session's, the mdoc or the XML say.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...flow.frame import BadData
from ...formats.image import Header, image_header
from ...formats.volume_header import volume_header
from . import layouts
from .companions import expected_frames
from .rows import Found, Stat
from .settings import FolderSettings

BLOCK = 1 << 16
_HEAD = 1024
# The header is whole and says what we do not read: it is for the decoder to refuse it, without waiting for more bytes.
REFUSED = frozenset({"mode", "dtype", "colour", "contents", "chunks"})
# Fewer than this part of what most movies of the session have is suspicious; EER movies differ by a frame or two.
_FEWER = 0.95
_SESSION = 5

HeaderOf = Callable[[Path, int], Header]


@dataclass(slots=True)
class Watched:
    """A file that is not complete yet. Times are on our monotonic clock: ``seen`` first, ``since`` unchanged, ``due``.

    ``reason`` is a short fixed word, ``detail`` a sentence with what to do. ``settled``: the journal knew it complete.
    """

    name: str
    path: str
    stat: Stat
    seen: float
    since: float
    due: float = 0.0
    settled: bool = False
    reason: str = "settling"
    detail: str = ""
    flags: list[str] = field(default_factory=list)
    header: Header | None = None
    problem: BadData | None = None
    checked: bool = False
    tail: bytes = b""
    hash: str = ""
    companions: dict[str, tuple[str, Stat, float]] = field(default_factory=dict)

    def update(self, stat: Stat, now: float) -> bool:
        """Take note of how the file is now; True where it is as before."""
        if stat == self.stat:
            return True
        self.stat, self.since, self.settled, self.checked = stat, now, False, False
        self.reason, self.detail = "changing", f"{stat.size} bytes by now"
        return False

    def found(self) -> Found:
        """What the journal takes."""
        return Found(self.name, self.stat, self.hash, tuple(self.flags))


class Completeness:
    """Judges files. ``frames`` of the session are learnt from those that were accepted. Not for several threads."""

    def __init__(self, settings: FolderSettings, header: HeaderOf | None = None) -> None:
        usual = volume_header if settings.take == "tomograms" else image_header
        self._settings, self._header = settings, header or usual
        self._frames: Counter[int] = Counter()

    def learn(self, frames: int) -> None:
        """A file with so many frames was accepted."""
        self._frames[frames] += 1

    def is_hopeless(self, file: Watched, now: float) -> bool:
        """Whether a file stayed the same, and incomplete, for too long."""
        return file.reason not in {"settling", "changing"} and now - file.since >= self._settings.incomplete_s

    def judge(self, file: Watched, now: float) -> bool:
        """Whether the file, unchanged as of ``now``, is complete; else its ``reason`` and ``detail`` say why not.

        Flags say what was accepted in doubt: ``zero_tail``, ``longer``, ``fewer_frames``, ``no_xml``, ``no_mdoc``.
        """
        still = now - file.since
        file.flags = []
        if file.stat.size == 0:
            return _wait(file, "empty", "no byte was written yet")
        # From the beginning, or companions would begin to settle only when the file has.
        missing = self._look_for_companions(file, now)
        if not file.settled and still < self._settings.settle_s:
            return _wait(file, "settling" if file.reason == "settling" else "changing", file.detail)
        doubtful = not file.settled and still < self._settings.doubt_s
        return (
            self._readable(file)
            and self._whole(file, doubtful)
            and self._filled(file, doubtful)
            and self._described(file, missing, now)
            and self._counted(file, doubtful)
        )

    def _readable(self, file: Watched) -> bool:
        """Read the header and both ends, once for each state of the file."""
        if file.checked:
            return file.problem is None or _wait(file, file.problem.reason, file.problem.detail)
        file.header = file.problem = None
        try:
            file.hash, file.tail = content_hash(file.path, file.stat.size)
            file.header = self._header(Path(file.path), file.stat.size)
        except BadData as error:
            file.problem = None if error.reason in REFUSED else error
        except OSError as error:
            # Not remembered as checked: permissions change without a trace in size and time.
            return _wait(file, "unreadable", f"{file.path}: {error.strerror}; let the daemon's user read it")
        file.checked = True
        return file.problem is None or _wait(file, file.problem.reason, file.problem.detail)

    def _whole(self, file: Watched, doubtful: bool) -> bool:
        if file.header is None or file.header.nbytes_expected is None:
            return True
        size, expected = file.stat.size, file.header.nbytes_expected
        if size < expected:
            return _wait(file, "truncated", f"{size} of {expected} bytes that its header promises; copy it again")
        if size > expected:
            # A stack's header is often brought up to date last.
            if doubtful:
                return _wait(file, "longer", f"{size} bytes, {size - expected} more than its header says")
            file.flags.append("longer")
        return True

    def _filled(self, file: Watched, doubtful: bool) -> bool:
        if not file.tail or file.tail.count(0) != len(file.tail):
            return True
        if doubtful:
            return _wait(file, "zero_tail", f"its last {len(file.tail)} bytes are zeros: allocated, and not written?")
        file.flags.append("zero_tail")
        return True

    def _look_for_companions(self, file: Watched, now: float) -> list[tuple[str, str]]:
        """Note the companions that are there, and since when so; gives kind and place of those that are not."""
        missing = []
        for kind, places in self._companion_places(file.name).items():
            found = next(filter(None, map(_stat_of, places)), None)
            if found is None:
                file.companions.pop(kind, None)
                missing.append((kind, places[0]))
            elif kind not in file.companions or file.companions[kind][:2] != found:
                file.companions[kind] = (*found, now)
        return missing

    def _described(self, file: Watched, missing: Sequence[tuple[str, str]], now: float) -> bool:
        """Whether the companions are there and settled, as far as they are waited for."""
        policy, settle_s = self._settings.companions, self._settings.settle_s
        if policy == "ignore":
            return True
        for path, _, since in file.companions.values():
            if not file.settled and now - since < settle_s:
                return _wait(file, "companion", f"{path} is still being written")
        patient = not file.settled and now - file.since < settle_s + self._settings.companion_timeout_s
        for kind, path in missing:
            if policy == "require" or patient:
                return _wait(file, "companion", f"{path} is not there")
            file.flags.append(f"no_{kind}")
        return True

    def _companion_places(self, name: str) -> dict[str, list[str]]:
        below, _, last = name.rpartition("/")
        roots = [self._settings.directory, self._settings.companion_directory]
        return {
            kind: [os.path.join(root, below, other) for root in roots if root for other in names]
            for kind, names in layouts.companions(self._settings.layout, last, self._settings.take).items()
        }

    def _counted(self, file: Watched, doubtful: bool) -> bool:
        """Whether the frames are as many as they must be."""
        if file.header is None:
            return True
        has, said = file.header.frames, file.header.info.get("frames_expected", 0)
        if has < said and file.header.kind == "tiff":
            return _wait(file, "frames", f"{has} frames, its own description speaks of {said}; copy it again")
        wanted = self._settings.frames
        if wanted is not None and wanted != "session":
            promised = self._promised(file, wanted)
            return has >= promised or _wait(file, "frames", f"{has} of {promised} frames; copy it again")
        usual, times = self._frames.most_common(1)[0] if self._frames and wanted else (0, 0)
        if has >= said and (times < _SESSION or has >= _FEWER * usual):
            return True
        if doubtful:
            return _wait(file, "frames", f"{has} frames; it speaks of {said}, and the session has {usual}")
        file.flags.append("fewer_frames")  # an exposure that was broken off
        return True

    def _promised(self, file: Watched, wanted: int | str) -> int:
        if isinstance(wanted, int):
            return wanted
        return expected_frames(wanted, paths_of(file).get(wanted), file.name) or 0


def paths_of(file: Watched) -> Mapping[str, str]:
    """Where the companions lie, by kind."""
    return {kind: path for kind, (path, _, _) in file.companions.items()}


def content_hash(path: str, size: int) -> tuple[str, bytes]:
    """A hash of size, head and tail (64 KiB each), and the tail after the first 1024 bytes. Raises ``OSError``.

    The whole of a movie is gigabytes; who writes another image also writes another head or tail.
    """
    with open(path, "rb") as file:
        head = file.read(BLOCK)
        start = max(0, size - BLOCK)
        file.seek(start)
        tail = file.read(BLOCK)
    digest = hashlib.blake2b(b"%d\n" % size + head + tail, digest_size=16).hexdigest()
    return digest, tail[max(0, _HEAD - start) :]


def _stat_of(path: str) -> tuple[str, Stat] | None:
    try:
        stat = Stat.of(os.stat(path))
    except OSError:
        return None
    return (path, stat) if stat.size else None


def _wait(file: Watched, reason: str, detail: str) -> bool:
    file.reason, file.detail = reason, detail
    return False
