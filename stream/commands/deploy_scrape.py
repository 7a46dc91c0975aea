"""Prometheus, Alertmanager and Grafana: what ships, with the site's daemons as targets."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import yaml

from .deploy_configs import Daemon
from .deploy_site import File, Site, copied, template

HEAD = """# Written by `beamsieve deploy`. The daemons are in targets/*.json, which is read again whenever it changes.

"""
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (read, not bound)


def prometheus(site: Site) -> dict[str, File]:
    """For a Prometheus on this machine: its configuration, the rules, and the daemons as targets."""
    made = {name: file for name, file in copied("prometheus") if name != "prometheus/prometheus.yml"}
    locked = not all(one.local or one.open_metrics for one in site.daemons)
    made["prometheus/prometheus.yml"] = File(prometheus_yml("localhost:9093", locked))
    made["prometheus/targets/beamsieve.json"] = File(targets(site, {one.name: _address(one) for one in site.daemons}))
    return made


def prometheus_yml(alertmanager: str, locked: bool = False) -> str:
    """The shipped configuration of Prometheus with the daemons taken from files, and this Alertmanager.

    ``locked``: the metrics need the page's token.
    """
    config = yaml.safe_load(template("prometheus/prometheus.yml"))
    job: dict[str, Any] = {"job_name": "beamsieve", "file_sd_configs": [{"files": ["targets/*.json"]}]}
    if locked:
        job["authorization"] = {"type": "Bearer", "credentials_file": "/etc/prometheus/beamsieve.token"}
    config["scrape_configs"] = [job]
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return HEAD + yaml.safe_dump(config, sort_keys=False)


def targets(site: Site, addresses: Mapping[str, str]) -> str:
    """The daemons as Prometheus' file_sd has them: ``addresses`` by the daemon's name."""
    found = [
        {
            "targets": [addresses[one.name]],
            "labels": {"instrument": one.instrument or site.instrument, "beamline": one.beamline},
        }
        for one in site.daemons
    ]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _address(one: Daemon) -> str:
    host = socket.gethostname() if one.host in EVERYWHERE else one.host
    return f"[{host}]:{one.port}" if ":" in host else f"{host}:{one.port}"


def alertmanager(_: Site) -> dict[str, File]:
    """As it ships."""
    return dict(copied("alertmanager"))


def grafana(_: Site) -> dict[str, File]:
    """As it ships: the data source and the dashboards."""
    return dict(copied("grafana"))
