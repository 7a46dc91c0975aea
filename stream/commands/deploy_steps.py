"""What to do with a deployment that was written: the next commands, and what to look at first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .deploy_configs import LOOPBACK, Daemon, dns
from .deploy_containers import claims
from .deploy_site import Site

HIDDEN = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 (looked for, not used)


def steps(site: Site, parts: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """A title and its commands, for each part that has some."""
    makers = {
        "systemd": _systemd,
        "prometheus": _prometheus,
        "compose": _compose,
        "slurm": _slurm,
        "kubernetes": _kubernetes,
    }
    for part in parts:
        if part in makers:
            yield makers[part](site)


def _at(site: Site, name: str) -> str:
    return shlex.quote(str(site.folder / name))


def _systemd(site: Site) -> tuple[str, Sequence[str]]:
    units = " ".join(f"beamsieve@{one.name}" for one in site.daemons)
    return "On this machine, with systemd", [
        f"less {_at(site, 'systemd/install.sh')}",
        f"sudo bash {_at(site, 'systemd/install.sh')}",
        *(f"sudo -u {site.user} {site.beamsieve} check {site.configs / one.name}.yaml" for one in site.daemons),
        f"sudo systemctl enable --now {units}",
        f"systemctl status {units}",
        f"journalctl -f -u 'beamsieve@*'          # page: {' '.join(_page(one) for one in site.daemons)}",
    ]


def _page(one: Daemon) -> str:
    return f"http://{'127.0.0.1' if one.local else one.host}:{one.port}/"


def _prometheus(site: Site) -> tuple[str, Sequence[str]]:
    return "Scraped by a Prometheus of your own", [
        f"promtool check config {_at(site, 'prometheus/prometheus.yml')}",
        f"sudo cp -r {_at(site, 'prometheus/rules')} {_at(site, 'prometheus/targets')} /etc/prometheus/",
        "# take rule_files and the job from prometheus/prometheus.yml into your prometheus.yml; then",
        "sudo systemctl reload prometheus",
    ]


def _compose(site: Site) -> tuple[str, Sequence[str]]:
    uid, gid = site.owner
    folders = " ".join(
        shlex.quote(str(path)) for path in dict.fromkeys(p for one in site.daemons for p in site.written(one))
    )
    return "In containers, with Prometheus, Alertmanager and Grafana", [
        f"sudo install -d -o {uid} -g {gid} {folders}",
        f"pip wheel --no-deps -w {_at(site, 'container/dist')} SOURCE   # beamsieve's checkout, or where it came from",
        f"cd {_at(site, 'compose')} && docker compose up -d --build   # http://127.0.0.1:3000, password in .env",
    ]


def _slurm(site: Site) -> tuple[str, Sequence[str]]:
    return "As a batch job", [
        f"sbatch {_at(site, 'slurm/beamsieve.sbatch')} {_at(site, f'config/{site.daemons[0].name}.yaml')}",
        "cat beamsieve-JOBID.url",
    ]


def _kubernetes(site: Site) -> tuple[str, Sequence[str]]:
    first = site.daemons[0]
    return "On Kubernetes", [
        *(
            f"# make the claim {name}, with what lies in {path}"
            for one in site.daemons
            for name, path in claims(site, one).items()
        ),
        f"kubectl apply -f {_at(site, 'kubernetes')}",
        f"kubectl -n beamsieve port-forward service/{dns(first.name)} {first.port}",
    ]


def notes(site: Site, parts: Sequence[str]) -> Iterator[str]:
    """What is right as it is written and may still surprise."""
    for one in site.daemons:
        yield f"{one.name}: writes to {', '.join(map(str, one.writes))}"
        host = re.sub(r"^\w+://", "", one.endpoint).rpartition(":")[0]
        if {"compose", "kubernetes"} & set(parts) and host.startswith(LOOPBACK):
            yield (
                f"{one.name}: source.endpoint {one.endpoint} is the container itself there; "
                "name the detector's host (for this machine in compose: host.docker.internal)"
            )
    if "systemd" in parts:
        yield from _notes_systemd(site)
    if "slurm" in parts:
        yield f"slurm: every node must see {site.folder} and {site.data}, and you must be able to write there (--data)"
    if {"prometheus", "compose", "alertmanager"} & set(parts):
        yield "alertmanager/alertmanager.yml: its receivers are placeholders; put yours there"


def _notes_systemd(site: Site) -> Iterator[str]:
    if site.below_home:
        yield "something the daemons need lies below /home or /root: the unit has ProtectHome=read-only instead of yes"
    words = [Path(word) for word in shlex.split(site.beamsieve)[:1]]
    for path in (*words, site.data, site.configs):
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            yield f"{path}: the unit has a /tmp of its own and does not see it; use another folder"
