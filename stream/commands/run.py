"""``beamsieve run|check|schema``: a daemon from its configuration, and what is wrong with one."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from ..flow.settings import ConfigError, Settings, Where, read_yaml
from ..flow.settings import check as check_data

if TYPE_CHECKING:
    from ..beamlines.xfel_hits import Daemon, XfelHits

BEAMLINES = ("xfel_hits",)

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a configuration that ships: xfel_hits")]
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
    from ..service import serve
    from ..terminal import LiveLine

    # OpenMP reads it when torch is loaded. Its threads spin while they wait, and take the cores from those that receive
    # and decode: with two threads on two busy cores a frame took the network 2.8 ms instead of 0.5 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(verbose)
    with config_errors():
        settings, where = read(config, set_ or [])
        daemon = build(settings, where)
    began = time.monotonic()
    line = None if quiet else LiveLine(daemon.pipeline.metrics)
    code = serve(daemon.pipeline, settings.service, sinks_say=daemon.files.healthy, show=line)
    daemon.failures.close()
    found = summary(daemon, time.monotonic() - began)
    if json_file:
        write_json(json_file, {settings.beamline: found})
    if summary_ and not quiet:
        typer.echo(describe(found), err=True)
    raise typer.Exit(code)


def check(config: Config, set_: Set = None) -> None:
    """Check a configuration and everything it names (model, constants, geometry), without opening a socket."""
    with config_errors():
        settings, where = read(config, set_ or [])
        daemon = build(settings, where)
    typer.echo(f"{where.path}: good: {settings.beamline} from {settings.source.kind}, model {daemon.model}")


def schema(
    beamline: Annotated[str, typer.Argument(help="which daemon: xfel_hits")] = "xfel_hits",
    out: Annotated[Path | None, typer.Option("--out", help="write it to this file instead of the terminal")] = None,
) -> None:
    """Export the JSON schema of a configuration, for editors.

    With the YAML language server, put "# yaml-language-server: $schema=FILE" on the first line of a configuration.
    """
    with config_errors():
        text = json.dumps(settings_of(beamline).model_json_schema(), indent=2)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    else:
        typer.echo(text)


def settings_of(beamline: str) -> type[XfelHits]:
    """The settings of the beamline of that name; raises ``ConfigError``."""
    if beamline not in BEAMLINES:
        raise ConfigError([f"beamline: {beamline!r} is unknown; known: {', '.join(BEAMLINES)}"])
    from ..beamlines.xfel_hits import XfelHits

    return XfelHits


def find(config: str) -> Path:
    """The path of a configuration: a file, or one that ships with beamsieve, by its name."""
    path = Path(config)
    if not path.exists() and path.parent == Path() and path.suffix in {"", ".yaml"}:
        with resources.as_file(resources.files("beamsieve.config") / f"{path.stem}.yaml") as shipped:
            if shipped.exists():
                return shipped
    return path


def read(config: str, changes: list[str]) -> tuple[XfelHits, Where]:
    """Settings from a file, with ``name.of.field=value`` changes on top. Raises ``ConfigError``."""
    path = find(config)
    data, lines = read_yaml(path)
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ConfigError([f"--set {change}: give it as field=value, for example service.port=9465"])
        apply_change(data, name.split("."), yaml.safe_load(value), change)
    beamline = data.get("beamline", BEAMLINES[0]) if isinstance(data, dict) else BEAMLINES[0]
    model = settings_of(beamline) if isinstance(beamline, str) else settings_of(str(beamline))
    where = Where(path, lines)
    if path.parent == Path(str(resources.files("beamsieve.config"))):
        where = Where(Path.cwd() / path.name, lines)
    return check_data(data, model, str(path), lines), where


def apply_change(data: Any, names: list[str], value: Any, change: str) -> None:
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


def build(settings: XfelHits, where: Where) -> Daemon:
    """The daemon of these settings; raises ``ConfigError``."""
    from ..beamlines import xfel_hits

    return xfel_hits.build(settings, where, config=as_text(settings))


def as_text(settings: Settings) -> str:
    """The settings as YAML, defaults included, without keys and passwords (there are none, only file names)."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def start_logging(verbose: bool) -> None:
    """Log to standard error, one line each."""
    level = logging.DEBUG if verbose else os.environ.get("BEAMSIEVE_LOG", "INFO").upper()
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


def summary(daemon: Daemon, seconds: float) -> dict[str, Any]:
    """What a daemon did, as plain values: the ledger, hits, answers, latency, losses, files."""
    metrics = daemon.pipeline.metrics
    tally = metrics.tally()
    hits, judged = metrics.hits()
    median, p99 = metrics.latency(0.5, 0.99)
    answers: dict[str, int] = dict.fromkeys(metrics.labels, 0)
    for (_, label), n in metrics.verdicts().items():
        answers[label] = answers.get(label, 0) + n
    return {
        "read": tally.read,
        "accepted": tally.accepted,
        "rejected": tally.rejected,
        "failed": tally.failed,
        "dropped": tally.dropped,
        "failures": tally.failures,
        "drops": tally.drops,
        "measured_hits": hits,
        "judged": judged,
        "measured_hit_rate": hits / judged if judged else None,
        "answers": answers,
        "events": dict(metrics.events()),
        "latency_median_s": None if judged == 0 else median,
        "latency_p99_s": None if judged == 0 else p99,
        "bottleneck": metrics.bottleneck(),
        "model": daemon.model,
        "seconds": seconds,
        "active_s": metrics.active_s(),
        "written": dict(metrics.written()),
        "files": [str(path) for path in daemon.files.files],
        "failed_messages": [str(path) for path in daemon.failures.paths],
    }


def describe(found: dict[str, Any]) -> str:
    """The summary in a few lines for a person."""
    from ..flow.rates import Rate
    from ..terminal import percent

    rate = percent(Rate(found["measured_hits"], found["judged"], found["seconds"]))
    lines = [
        f"{found['read']} shots read = {found['accepted']} accepted + {found['rejected']} rejected"
        f" + {found['failed']} failed + {found['dropped']} dropped",
        f"hit rate {rate}, model {found['model']}",
    ]
    lines += [
        f"{name}: " + ", ".join(f"{key} {n}" for key, n in found[name].items())
        for name in ("failures", "drops", "events")
        if found[name]
    ]
    lines += [f"file {path}" for path in found["files"] + found["failed_messages"]]
    return "\n".join(lines)


def write_json(path: Path, data: Any) -> None:
    """Write JSON beside and rename, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
