"""Files named one by one as a source: what ``beamsieve pick`` reads. Nothing is waited for, nothing remembered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..flow.frame import STILL_A_FILE, Failure, Incoming, Key, Raw, RunStart


class FileList:
    """Gives each file once, in order, as a ``Raw``.

    ``base``: the folder that names start at; by default a file's name alone. ``names``: what some are called instead.
    Companion files beside a file are named by their endings (``.xml``, ``.mdoc``).
    """

    def __init__(
        self,
        files: Sequence[Path],
        run: str = "pick",
        base: Path | None = None,
        names: Mapping[Path, str] | None = None,
    ) -> None:
        self._files = list(files)
        self._run = run
        self._base = base
        self._names = names or {}
        self._items: Iterator[Incoming] = iter(())

    def open(self) -> None:
        """Begin at the first file."""
        self._items = self._all()

    def read(self, timeout: float) -> Sequence[Incoming] | None:  # noqa: ARG002
        """The next file; None after the last one."""
        found = next(self._items, None)
        return None if found is None else [found]

    def done(self, keys: Sequence[Key]) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is open."""

    def _all(self) -> Iterator[Incoming]:
        yield RunStart(self._run)
        for number, path in enumerate(self._files, 1):
            yield self._one(Key(self._run, number), path)

    def _one(self, key: Key, path: Path) -> Raw | Failure:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return Failure(key, "bad_name", f"{str(path)!a}: its name is not UTF-8, no text; rename it")
        try:
            size = path.stat().st_size
        except OSError as error:
            return Failure(key, "vanished", f"{path}: {error.strerror}; name an existing file")
        name = path.relative_to(self._base) if self._base and path.is_relative_to(self._base) else Path(path.name)
        info = {
            "path": str(path),
            "name": self._names.get(path, name.as_posix()),
            "bytes": size,
            "revision": 0,
            "companions": companions(path),
            "flags": (),
        }
        return Raw(key, STILL_A_FILE, time.monotonic(), time.time(), info=info)


def companions(path: Path) -> dict[str, str]:
    """Files beside ``path`` that describe it, where they exist: ``<stem>.xml``; ``<name>.mdoc`` or ``<stem>.mdoc``."""
    found: dict[str, str] = {}
    for kind, names in {"xml": (f"{path.stem}.xml",), "mdoc": (f"{path.name}.mdoc", f"{path.stem}.mdoc")}.items():
        for name in names:
            if (beside := path.with_name(name)).is_file():
                found.setdefault(kind, str(beside))
    return found
