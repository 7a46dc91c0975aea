"""``beamsieve run|check|schema``: a daemon from its configuration, and what is wrong with one."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
import yaml

from ..flow.settings import MAX_DEPTH, ConfigError, Place, Settings, Where, read_yaml
from ..flow.settings import check as check_data

if TYPE_CHECKING:
    from ..beamlines.cryoem_picks import CryoemPicks
    from ..beamlines.cryoem_picks import Daemon as PicksDaemon
    from ..beamlines.cryoet_mining import CryoetMining
    from ..beamlines.cryoet_mining import Daemon as MiningDaemon
    from ..beamlines.xfel_hits import Daemon as HitsDaemon
    from ..beamlines.xfel_hits import XfelHits
    from .reports import Report

    AnySettings: TypeAlias = XfelHits | CryoemPicks | CryoetMining
    AnyDaemon: TypeAlias = HitsDaemon | PicksDaemon | MiningDaemon

log = logging.getLogger(__name__)

BEAMLINES = ("xfel_hits", "cryoem_picks", "cryoet_mining")
MOST_SHOWN = 60
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FOLDER = resources.files("beamsieve.config")

SHIPPED = tuple(sorted(Path(entry.name).stem for entry in FOLDER.iterdir() if entry.name.endswith(".yaml")))

Config = Annotated[str, typer.Argument(help=f"YAML file, or a configuration that ships: {', '.join(SHIPPED)}")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="change one setting: source.endpoint=tcp://detector:9999; repeatable")
]
Json = Annotated[Path | None, typer.Option("--json", help="write the summary to this file")]


def run(
    config: Config,
    set_: Set = None,
    json_file: Json = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no live line and no summary")] = False,
    summary_: Annotated[bool, typer.Option("--summary/--no-summary", help="print a summary at the end")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log more")] = False,
) -> None:
    """Run a daemon until its source ends or SIGTERM/SIGINT drains it.

    Exit code 0: drained. 1: a bug, or something is not there. 2: a wrong configuration.
    """
    from ..service import serve, signals

    # OpenMP reads it when torch is loaded. Its threads spin while they wait, and take the cores from those that receive
    # and decode: with two threads on two busy cores a frame took the network 2.8 ms instead of 0.5 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(verbose)
    with config_errors():
        settings, where = read(config, set_ or [])
        daemon, report = build(settings, where)
    began = time.monotonic()
    line = None if quiet else report.line()
    listens = place_of(settings)
    running = threading.Event()

    def ready(_port: int) -> None:
        running.set()
        log.info("%s (%s)", listens, settings.source.kind)

    stop = threading.Event()
    with signals(stop, daemon.pipeline.abort, leaving=True):
        code = serve(
            daemon.pipeline,
            settings.service,
            stop=stop,
            sinks_say=daemon.healthy,
            show=line,
            ready=ready,
            where=listens,
            listens=False,
            page=daemon.page,
            token=daemon.token,
        )
        daemon.close()
        if not running.is_set():
            raise typer.Exit(code)
        found = report.summary(time.monotonic() - began)
        if json_file:
            write_json(json_file, {settings.beamline: found})
        if summary_ and not quiet:
            typer.echo(report.describe(found), err=True)
    raise typer.Exit(code)


def check(config: Config, set_: Set = None) -> None:
    """Check a configuration and everything it names (model, constants, geometry, recordings), without a socket."""
    with config_errors():
        settings, where = read(config, set_ or [])
        daemon, _ = build(settings, where)
    daemon.close()
    typer.echo(f"{where.path}: good: {settings.beamline} from {settings.source.kind}, model {daemon.model}")


def schema(
    beamline: Annotated[str, typer.Argument(help=f"which daemon: {', '.join(BEAMLINES)}")] = BEAMLINES[0],
    out: Annotated[Path | None, typer.Option("--out", help="write it to this file instead of the terminal")] = None,
) -> None:
    """Export the JSON schema of a configuration, for editors.

    With the YAML language server, put "# yaml-language-server: $schema=FILE" on the first line of a configuration.
    """
    with config_errors():
        text = json.dumps(settings_of(beamline).model_json_schema(), indent=2)
    if out:
        write_text(out, text + "\n")
    else:
        typer.echo(text)


def settings_of(beamline: str) -> type[AnySettings]:
    """The settings of the beamline of that name; raises ``ConfigError``."""
    if beamline == "xfel_hits":
        from ..beamlines.xfel_hits import XfelHits

        return XfelHits
    if beamline == "cryoem_picks":
        from ..beamlines.cryoem_picks import CryoemPicks

        return CryoemPicks
    if beamline == "cryoet_mining":
        from ..beamlines.cryoet_mining import CryoetMining

        return CryoetMining
    close = difflib.get_close_matches(beamline, BEAMLINES, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError([f"beamline: {beamline!r} is unknown; {hint}known: {', '.join(BEAMLINES)}"])


def find(config: str) -> Path:
    """The path of a configuration: a file, or one that ships with beamsieve, by its name."""
    path = Path(config)
    if path.exists() or path.parent != Path() or path.suffix not in {"", ".yaml"}:
        return path
    if path.stem in SHIPPED:
        with resources.as_file(FOLDER / f"{path.stem}.yaml") as shipped:
            return shipped
    close = difflib.get_close_matches(path.stem, SHIPPED, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError([f"{config}: no such file, and none of that name ships; {hint}those are {', '.join(SHIPPED)}"])


class Changed(Where):
    """Where settings stand when some were changed by ``--set``: these have lines -n … -1, in the order of changes."""

    def __init__(self, path: Path, lines: Mapping[Place, int], base: Path, changes: Sequence[str]) -> None:
        super().__init__(path, lines)
        self._base, self._changes = base, changes

    @property
    def base(self) -> Path:
        """The folder that relative names start at."""
        return self._base

    def __call__(self, *place: str | int) -> str:
        """The start of a message about the setting at ``place``."""
        return self.blame(super().__call__(*place))

    def blame(self, mistake: str) -> str:
        """The mistake with ``--set`` in place of the file's line where that is to blame."""
        found = re.match(re.escape(f"{self.path}:-") + r"(\d+): ", mistake)
        if found is None:
            return mistake
        change = self._changes[-int(found[1])]
        short = change if len(change) <= MOST_SHOWN else f"{change.partition('=')[0]}=…"
        return f"--set {short}: {mistake[found.end() :]}"


def read(config: str, changes: list[str]) -> tuple[AnySettings, Where]:
    """Settings from a file, with ``name.of.field=value`` changes on top. Raises ``ConfigError``."""
    path = find(config)
    data, lines = read_yaml(path)
    for number, change in enumerate(changes):
        names, value = parse_change(change)
        apply_change(data, names, value, change)
        replaced = [place for place in lines if place[: len(names)] == names]
        for place in replaced:
            del lines[place]
        lines.update(dict.fromkeys(places(names, value), number - len(changes)))
    beamline = data.get("beamline", BEAMLINES[0]) if isinstance(data, dict) else BEAMLINES[0]
    model = settings_of(beamline) if isinstance(beamline, str) else settings_of(str(beamline))
    where = Changed(path, lines, Path.cwd() if path.parent == Path(str(FOLDER)) else path.parent, changes)
    try:
        return check_data(data, model, str(path), lines), where
    except ConfigError as error:
        raise ConfigError([where.blame(mistake) for mistake in error.mistakes]) from None


def parse_change(change: str) -> tuple[Place, Any]:
    """The place and the value of ``name.of.field=value``; raises ``ConfigError``."""
    name, equals, value = change.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError([f"--set {change}: give it as field=value, for example service.port=9465"])
    try:
        return tuple(name.split(".")), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise ConfigError([f"--set {change}: the value is not YAML; put it into quotes, '{name}=\"value\"'"]) from None


def places(place: Place, value: Any) -> Iterator[Place]:
    """The place of a value, and those of all it holds."""
    yield place
    if len(place) > MAX_DEPTH:
        raise ConfigError([f"--set: {place[0]}: nested more than {MAX_DEPTH} deep; does an anchor hold itself?"])
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places((*place, name), item)


def place_of(settings: AnySettings) -> str:
    """What a daemon reads from, in words."""
    source = settings.source
    if source.kind == "folder":
        return f"watching {source.directory}"
    if source.kind == "replay":
        return f"playing {', '.join(map(str, source.files))}"
    return f"listening {'at' if source.bind else 'to'} {source.endpoint}"


def apply_change(data: Any, names: Place, value: Any, change: str) -> None:
    """Set ``data[names[0]][names[1]]… = value``, making blocks on the way."""
    for name in names[:-1]:
        if not isinstance(data, dict):
            raise ConfigError([f"--set {change}: {name} is not a block of settings"])
        if not isinstance(data.get(name), dict):
            data[name] = {}
        data = data[name]
    if not isinstance(data, dict):
        raise ConfigError([f"--set {change}: {names[-1]} has no place there"])
    data[names[-1]] = value


def build(settings: AnySettings, where: Where) -> tuple[AnyDaemon, Report]:
    """The daemon of these settings, and what reports it; raises ``ConfigError``."""
    from .reports import HitReport, YieldReport

    text = as_text(settings)
    if settings.beamline == "cryoem_picks":
        from ..beamlines import cryoem_picks

        picks = cryoem_picks.build(settings, where, config=text)
        return picks, YieldReport(picks)
    if settings.beamline == "cryoet_mining":
        from ..beamlines import cryoet_mining
        from .mining_report import MiningReport

        mining = cryoet_mining.build(settings, where, config=text)
        return mining, MiningReport(mining)
    from ..beamlines import xfel_hits

    hits = xfel_hits.build(settings, where, config=text)
    return hits, HitReport(hits)


def as_text(settings: Settings) -> str:
    """The settings as YAML, defaults included, without keys and passwords (there are none, only file names)."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def start_logging(verbose: bool) -> None:
    """Log to standard error, one line each."""
    level = "DEBUG" if verbose else os.environ.get("BEAMSIEVE_LOG", "INFO").upper()
    if level not in LEVELS:
        typer.echo(f"BEAMSIEVE_LOG={level}: unknown; set it to one of {', '.join(LEVELS)}", err=True)
        raise typer.Exit(2)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


@contextmanager
def config_errors() -> Iterator[None]:
    """Print the mistakes of a configuration, one a line, and exit with 2."""
    try:
        yield
    except ConfigError as error:
        for mistake in error.mistakes:
            typer.echo(mistake, err=True)
        raise typer.Exit(2) from None


def write_json(path: Path, data: Any) -> None:
    """Write JSON; where that is impossible, say so and exit with 1."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader never sees half of it; where impossible, say so and exit with 1."""
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        typer.echo(f"{path}: cannot be written: {error.strerror}; name another file", err=True)
        raise typer.Exit(1) from None
