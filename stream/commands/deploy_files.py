"""The files of a deployment, part by part."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from .deploy_containers import compose, container, kubernetes
from .deploy_scrape import alertmanager, grafana, prometheus
from .deploy_site import File, Site, fill, names, stop_s, template

PARTS = ("config", "systemd", "prometheus", "alertmanager", "grafana", "container", "compose", "slurm", "kubernetes")
#: What a part is of no use without.
NEEDS = {
    "systemd": ("config",),
    "slurm": ("config",),
    "compose": ("config", "container", "prometheus", "alertmanager", "grafana"),
}


def files(site: Site, parts: Iterable[str]) -> dict[str, File]:
    """Every file of these parts and of what they need, by its name below the folder."""
    wanted = {need for part in parts for need in (part, *NEEDS.get(part, ()))}
    made: dict[str, File] = {}
    for part in PARTS:
        if part in wanted:
            made.update(_MAKERS[part](site))
    return made


def _config(site: Site) -> dict[str, File]:
    return {f"config/{one.name}.yaml": File(one.text) for one in site.daemons}


def _systemd(site: Site) -> dict[str, File]:
    folders = [path for one in site.daemons for path in site.written(one)]
    folders += [path for one in site.daemons for path in one.reads if path.is_relative_to(site.data)]
    common = names(site) | {
        "PROTECT_HOME": "read-only" if site.below_home else "yes",
        "FOLDERS": " ".join(shlex.quote(str(path)) for path in dict.fromkeys(folders)),
        "UNITS": " ".join(f"beamsieve@{one.name}" for one in site.daemons),
    }
    made = {
        "systemd/beamsieve@.service": File(fill(template("systemd/beamsieve@.service"), common)),
        "systemd/beamsieve.env": File(template("systemd/beamsieve.env")),
        "systemd/install.sh": File(fill(template("systemd/install.sh"), common), program=True),
    }
    for one in site.daemons:
        own = common | {
            "NAME": one.name,
            "MOUNTS": _unit_paths([*site.written(one), *one.reads]),
            "WRITES": _unit_paths(site.written(one)),
            "STOP_S": stop_s(one),
        }
        made[f"systemd/beamsieve@{one.name}.service.d/paths.conf"] = File(fill(template("systemd/paths.conf"), own))
    return made


def _unit_paths(paths: Iterable[Path]) -> str:
    """A list of paths as a unit has it: ``%`` starts a specifier there, and blanks part."""
    return " ".join(json.dumps(str(path).replace("%", "%%"), ensure_ascii=False) for path in dict.fromkeys(paths))


def _slurm(site: Site) -> dict[str, File]:
    # Nodes share the folder that was written to more likely than this machine's /etc.
    first = site.folder / "config" / f"{site.daemons[0].name}.yaml"
    common = names(site) | {"CONFIG": shlex.quote(str(first))}
    return {"slurm/beamsieve.sbatch": File(fill(template("slurm/beamsieve.sbatch"), common), program=True)}


_MAKERS = {
    "config": _config,
    "systemd": _systemd,
    "prometheus": prometheus,
    "alertmanager": alertmanager,
    "grafana": grafana,
    "container": container,
    "compose": compose,
    "slurm": _slurm,
    "kubernetes": kubernetes,
}
