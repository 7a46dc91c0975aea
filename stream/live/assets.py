"""The page's own files, read once at start; no path of a request is ever opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent: its bytes, media type and entity tag."""

    body: bytes
    kind: str
    tag: str


def read_assets(root: Traversable | None = None) -> Mapping[str, Asset]:
    """All files of the package's ``static`` folder (or of ``root``) by path, as ``picks/table.js``.

    Files whose ending has no known media type (licences, sources) are left out.
    """
    root = root if root is not None else files(__package__).joinpath("static")
    found = {}
    for path, file in _walk(root, ""):
        kind = KINDS.get(path.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            found[path] = Asset(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry
