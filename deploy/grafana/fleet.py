"""The dashboard of all daemons, which says which of them needs somebody."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from .board import RUNBOOKS, RUNBOOKS_ID, Board, Row
from .compared import WHERE, disks, hit_rates, losses, speeds, uptimes, yields
from .panels import ORANGE, PLAIN, PURPLE, SKY, Panel, number, page, states, words
from .queries import MANY, Query, chosen, of
from .tables import Column, rows
from .xfel_run import READY, WRITING

ALERTS_PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"
UP = {"1": ("up", SKY), "0": ("down", ORANGE)}
BY = "max by (instrument, beamline, instance)"
STATES = {"0": ("down", ORANGE), "1": ("not ready", PURPLE), "2": ("ready", SKY)}


def board() -> Board:
    """The dashboard."""
    rows_of = [
        Row("Now", now()),
        Row("Daemons", [daemons(), alerts(), state()]),
        Row("Compared", [hit_rates(), yields(), speeds(), losses(), disks(), uptimes()]),
        Row("Help", [runbooks()]),
    ]
    return Board(
        uid="beamsieve-fleet",
        title="beamsieve: fleet of daemons",
        about="All daemons of the chosen instruments: up, ready, what they give, what they lose, and the alerts.",
        rows=rows_of,
        many=True,
        since="now-3h",
        links=(
            ("XFEL run", "/d/beamsieve-xfel?${datasource:queryparam}&${instrument:queryparam}"),
            ("Cryo-EM session", "/d/beamsieve-cryoem?${datasource:queryparam}&${instrument:queryparam}"),
            ("Cryo-ET session", "/d/beamsieve-cryoet?${datasource:queryparam}&${instrument:queryparam}"),
            ("One daemon's internals", "/d/beamsieve-daemon?${datasource:queryparam}&${instrument:queryparam}"),
        ),
    )


def up() -> str:
    """The selector of what Prometheus says of the daemons."""
    return of("up", 'job="beamsieve"', MANY)


def firing(state: str = "firing") -> str:
    """The selector of alerts."""
    return of("ALERTS", f'alertname=~"Beamsieve.*", alertstate=~"{state}"', MANY)


def now() -> list[Panel]:
    """Counts of this moment."""
    return [
        number(
            "Daemons up",
            "Daemons that answered Prometheus' last question.",
            Query(f"count({up()} == 1) or 0 * count({up()})"),
            unit="none",
            w=4,
            decimals=0,
            low=0,
            nothing="no targets",
        ),
        number(
            "Daemons down",
            "Daemons that did not answer. One is enough to go and look (BeamsieveDown).",
            Query(f"count({up()} == 0) or 0 * count({up()})"),
            unit="none",
            w=4,
            decimals=0,
            low=0,
            nothing="no targets",
            colours=((None, SKY), (1, ORANGE)),
        ),
        number(
            "Not ready",
            "Daemons that answer, and say that they must not be relied on. Their /readyz says why.",
            Query(f"count({of('beamsieve_ready', '', MANY)} == 0) or 0 * count({up()})"),
            unit="none",
            w=4,
            decimals=0,
            low=0,
            nothing="no targets",
            colours=((None, SKY), (1, ORANGE)),
        ),
        number(
            "Alerts firing",
            "Alerts of these daemons that fire now, whatever their severity. The table below has them.",
            Query(f"count({firing()}) or 0 * count({up()})"),
            unit="none",
            w=4,
            decimals=0,
            low=0,
            nothing="no targets",
            colours=((None, SKY), (1, ORANGE)),
        ),
        number(
            "Frames per second",
            "Read by all these daemons together: shots and micrographs.",
            Query(f"sum({chosen(of('beamsieve:frames_read:rate_1m', '', MANY))})"),
            unit="suffix: /s",
            w=4,
            decimals=1,
            low=0,
        ),
        number(
            "Least disk",
            "The room that is left where it is the least. Below 10 GB is an alert (BeamsieveDiskLow).",
            Query(f"min({of('beamsieve_disk_free_bytes', '', MANY)})"),
            unit="decbytes",
            w=4,
            decimals=0,
            low=0,
            colours=((None, ORANGE), (10e9, SKY)),
        ),
    ]


def daemons() -> Panel:
    """One row per daemon."""
    hits = chosen(of("beamsieve:hit_rate:ratio_10m", 'beamline!~"cryo.+"', MANY))
    picks = chosen(of("beamsieve_yield_median", 'over="last_10"', MANY))
    model = chosen(of("beamsieve_model_info", "", MANY))
    run = chosen(of("beamsieve_run_info", "", MANY))
    started = of("beamsieve_started_timestamp_seconds", "", MANY)
    address = (
        "Internals",
        "/d/beamsieve-daemon?${datasource:queryparam}&var-instrument=${__data.fields.Instrument}&"
        "var-daemon=${__value.raw}",
    )
    bad = ((None, PLAIN), (0.01, ORANGE))
    columns = [
        Column("Instrument", label="instrument"),
        Column("Daemon", label="instance", link=address),
        Column("Beamline", label="beamline"),
        Column("Up", f"{BY} ({up()})", meaning=words(UP)),
        Column("Ready", f"{BY} ({of('beamsieve_ready', '', MANY)})", meaning=words(READY)),
        Column("Alerts", f"count by (instrument, beamline, instance) ({firing()})", colours=((None, ORANGE),)),
        Column("Model", label="name"),
        Column("Version", label="version"),
        Column("Hit rate", f"{BY} ({hits})", unit="percentunit", decimals=1),
        Column("Picks", f"{BY} ({picks})", unit="none", decimals=0),
        Column(
            "Lost", f"{BY} ({of('beamsieve:loss:ratio_10m', '', MANY)})", unit="percentunit", decimals=2, colours=bad
        ),
        Column("Frames/s", f"{BY} ({of('beamsieve:frames_read:rate_1m', '', MANY)})", unit="none", decimals=1),
        Column("Disk free", f"{BY} ({of('beamsieve_disk_free_bytes', '', MANY)})", unit="decbytes", decimals=0),
        Column("Up for", f"{BY} (time() - {started})", unit="dtdurations", decimals=0),
        Column("Writing", f"{BY} ({of('beamsieve_writing', '', MANY)})", meaning=words(WRITING)),
        Column("Run", label="title"),
        Column("has model", f"max by (instrument, beamline, instance, name, version) ({model})"),
        Column("has run", f"max by (instrument, beamline, instance, title) ({run})"),
    ]
    return rows(
        "Daemons",
        "A row for each daemon. Hit rate: of the last ten minutes; picks: median of the last ten micrographs; lost: "
        "failed and dropped, of the last ten minutes. Orange wants somebody. A click on a daemon leads inside.",
        columns,
        h=9,
        sort="Instrument",
        nothing="no daemon is scraped",
        hidden=("has model", "has run"),
    )


def alerts() -> Panel:
    """Alerts that fire or are about to."""
    link = ("What to do", RUNBOOKS)
    labels = ("alertname", "severity", "alertstate", "instrument", "beamline", "instance")
    titles = ("Alert", "Severity", "State", "Instrument", "Beamline", "Daemon")
    columns = [
        Column(title, label=label, link=link if label == "alertname" else None)
        for title, label in zip(titles, labels, strict=True)
    ]
    asked = firing("firing|pending")
    return rows(
        "Alerts",
        "Alerts that fire, or are pending: true, but not for long enough. What each means and what to do stands at the "
        "end of this dashboard, and in docs/alerts.md. Empty is good.",
        [*columns, Column("is", f"max by ({', '.join(labels)}) ({asked})")],
        w=12,
        sort="Severity",
        nothing="no alert fires",
        hidden=("is",),
    )


def state() -> Panel:
    """Up and ready, over time."""
    ready = of("beamsieve_ready", "", MANY)
    return states(
        "Up and ready",
        "Down: no answer. Not ready: it answers, and says that it must not be relied on. Gaps: Prometheus itself was "
        "down, or did not know the daemon.",
        Query(f"{up()} + on (instrument, beamline, job, instance) {ready} or {up()}", WHERE),
        STATES,
        w=12,
        h=8,
    )


def runbooks() -> Panel:
    """docs/alerts.md, without the links that lead nowhere from Grafana. A control room may have no way out to them."""
    text = ALERTS_PAGE.read_text(encoding="utf-8").partition("\n")[2].strip()
    text = re.sub(r"\[([^\]]+)\]\((?:#|\.\./)[^)]*\)", r"\1", text) + "\n"
    about = "docs/alerts.md, as it ships with these dashboards."
    return replace(page("What alerts mean, and what to do", about, text, h=24), id=RUNBOOKS_ID)
