"""The configurations that ``beamsieve deploy`` takes along: read, checked, and independent of the folder they lay in.

A unit or a container reads its configuration from another folder than the one it was written in, so every relative
name in it is made absolute, and the port is set where the command line asks for another. Comments stay.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..flow.settings import ConfigError, Place
from .run import FOLDER, find, read

if TYPE_CHECKING:
    from .run import AnySettings

SCHEMA_LINE = re.compile(r"\A# yaml-language-server:.*\n#\n")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,50}")
RESERVED = ("prometheus", "alertmanager", "grafana")
LOOPBACK = ("127.", "localhost", "::1")
#: Settings that name a file or folder that is read, and those that are written. ``*`` stands for any place in a list.
READ = (
    ("source", "directory"),
    ("source", "companion_directory"),
    ("source", "files", "*"),
    ("source", "curve", "key_file"),
    ("source", "curve", "server_key_file"),
    ("detector", "geometry", "file"),
    ("decode", "gain"),
    ("files", "project"),
    ("service", "token_file"),
)
WRITTEN = (("files", "directory"), ("source", "journal"))
FOLDERS = (("source", "directory"), ("source", "companion_directory"), ("files", "project"))
#: These name a bundle, or the path of one.
BUNDLES = (("model", "bundle"), ("segment", "bundle"), ("segment", "start"))
#: Those that name an array in a file, as ``file.h5:/path``.
ARRAYS = tuple(("calibrate", word, *more) for word in ("dark", "gain", "noise", "mask") for more in ((), ("*",)))


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon to deploy. ``text`` is its configuration; ``writes`` and ``reads`` are the folders in it.

    ``host`` and ``port`` are where its page and metrics listen, ``open_metrics`` whether the metrics do without the
    token there, ``grace_s`` the seconds it may drain, ``endpoint`` what it connects to ("" for folders, recordings).
    """

    name: str
    beamline: str
    instrument: str
    text: str
    host: str
    port: int
    open_metrics: bool
    grace_s: float
    endpoint: str
    writes: tuple[Path, ...]
    reads: tuple[Path, ...]

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host.startswith(LOOPBACK)


def daemons(configs: Sequence[str], ports: Sequence[int], data: Path) -> list[Daemon]:
    """The daemons of these configurations, in order. Raises ``ConfigError`` with every mistake."""
    mistakes: list[str] = []
    found: list[Daemon] = []
    if ports and len(ports) != len(configs):
        mistakes.append(f"--port: {len(ports)} given for {len(configs)} configurations; give one for each --config")
        ports = ()
    for number, config in enumerate(configs):
        try:
            found.append(daemon(config, ports[number] if ports else None, data))
        except ConfigError as error:
            mistakes += error.mistakes
    mistakes += _clashes(found)
    if mistakes:
        raise ConfigError(mistakes)
    return found


def _clashes(found: Sequence[Daemon]) -> Iterator[str]:
    names: dict[str, str] = dict.fromkeys(RESERVED, "a service of the deployment itself")
    ports: dict[int, str] = {}
    for one in found:
        # As DNS has them: containers and pods are called so.
        name = dns(one.name)
        if name in names:
            yield f"--config: {one.name} is also {names[name]}; the file's name becomes the daemon's, rename the file"
        elif one.port in ports:
            yield f"service.port: {ports[one.port]} and {one.name} both listen on {one.port}; give a --port for each"
        names[name], ports[one.port] = f"the name of {one.name}", one.name


def dns(name: str) -> str:
    """A daemon's name as DNS allows it: ``xfel_hits`` becomes ``xfel-hits``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def daemon(config: str, port: int | None, data: Path) -> Daemon:
    """One daemon. ``port`` replaces the configuration's; what it writes to a relative folder goes below ``data``."""
    settings, where = read(config, [])
    path = find(config)
    if not NAME.fullmatch(path.stem):
        raise ConfigError(
            [f"{path}: a unit takes its name; use letters, digits, . _ - and start with one of the first"]
        )
    if (port if port is not None else settings.service.port) == 0:
        raise ConfigError([where("service", "port") + "0 is a different port each time; give one, or --port"])
    text = path.read_text(encoding="utf-8")
    ships = path.parent == Path(str(FOLDER))
    if ships:  # for editors in the folder of its schema
        text = SCHEMA_LINE.sub("", text)
    changes: dict[Place, Any] = dict(
        absolute(text, data / path.stem if ships else path.parent.absolute(), data / path.stem)
    )
    if port is not None:
        changes["service", "port"] = port
    text = edited(text, changes)
    named = list(_named(text))
    return Daemon(
        name=path.stem,
        beamline=settings.beamline,
        instrument=getattr(settings.files, "instrument", ""),
        text=text,
        host=settings.service.host,
        port=settings.service.port if port is None else port,
        open_metrics=settings.service.open_metrics,
        grace_s=settings.service.grace_s,
        endpoint=_endpoint(settings),
        writes=tuple(sorted({_written(place, value) for place, value in named if fits(place, WRITTEN)})),
        reads=tuple(sorted({_read(place, value) for place, value in named if not fits(place, WRITTEN)})),
    )


def _endpoint(settings: AnySettings) -> str:
    return settings.source.endpoint if settings.source.kind in {"dectris", "karabo"} else ""


def absolute(text: str, base: Path, data: Path) -> Iterator[tuple[Place, str]]:
    """The settings of ``text`` that name something relative, and their absolute names.

    What is read starts at ``base``, what is written at ``data``.
    """
    for place, value in _named(text):
        start = data if fits(place, WRITTEN) else base
        if not Path(value).is_absolute():
            yield place, os.path.normpath(start / value)


def _named(text: str) -> Iterator[tuple[Place, str]]:
    for place, node in scalars(yaml.compose(text, Loader=yaml.SafeLoader)):
        value = node.value
        if node.tag.endswith(":null"):
            continue
        if fits(place, (*READ, *WRITTEN, *ARRAYS)) or (place in BUNDLES and _is_file(value)):
            yield place, value


def _is_file(bundle: str) -> bool:
    # As models.bundle has it; its import would load torch.
    return os.sep in bundle or bundle.endswith((".pt", ".json"))


def _written(place: Place, value: str) -> Path:
    """The folder that is written in: a journal is a file in one."""
    return Path(value).parent if place[-1] == "journal" else Path(value)


def _read(place: Place, value: str) -> Path:
    """The folder that is read in: a file's own, because what lies beside it may be read with it."""
    if fits(place, FOLDERS):
        return Path(value)
    name = value.rpartition(":")[0] if fits(place, ARRAYS) and not value.endswith(".npy") else value
    return Path(name or value).parent


def fits(place: Place, patterns: Sequence[tuple[str, ...]]) -> bool:
    """Whether ``place`` is one of these."""
    return any(
        len(place) == len(pattern) and all(p in ("*", part) for p, part in zip(pattern, place, strict=True))
        for pattern in patterns
    )


def scalars(node: yaml.Node | None, place: Place = ()) -> Iterator[tuple[Place, yaml.ScalarNode]]:
    """Every value of a YAML document that is no list and no block, and where it stands."""
    if isinstance(node, yaml.ScalarNode):
        yield place, node
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from scalars(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from scalars(value, (*place, number))


def edited(text: str, changes: Mapping[Place, Any]) -> str:
    """The YAML text with these values in place of its own, and everything else as it was.

    A place with two names that is not there yet is added, to its block or in a block at the end.
    """
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = dict(scalars(document))
    # From the end, so that what was found before stays where it was. Two places may share an anchored value.
    spots = {
        nodes[place].start_mark.index: (nodes[place].end_mark.index, changes[place])
        for place in changes
        if place in nodes
    }
    for begin in sorted(spots, reverse=True):
        end, value = spots[begin]
        text = text[:begin] + json.dumps(value, ensure_ascii=False) + text[end:]
    for place in changes:
        if place not in nodes:
            text = _added(text, place, json.dumps(changes[place], ensure_ascii=False))
    return text


def _added(text: str, place: Place, value: str) -> str:
    block, name = map(str, place)
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    found = (
        {key.value: node for key, node in document.value}.get(block) if isinstance(document, yaml.MappingNode) else None
    )
    if isinstance(found, yaml.MappingNode) and found.value:
        begin = found.value[0][0].start_mark
        after = ", " if found.flow_style else "\n" + " " * begin.column
        return f"{text[: begin.index]}{name}: {value}{after}{text[begin.index :]}"
    if found is not None:  # an empty block: {}, or nothing
        begin, end = found.start_mark.index, found.end_mark.index
        return f"{text[:begin]} {{{name}: {value}}}{text[end:]}"
    return f"{text.rstrip()}\n\n{block}:\n  {name}: {value}\n"
