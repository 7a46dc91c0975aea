"""Containers: what an image is built from, the compose file, and the manifests for Kubernetes."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import textwrap
from importlib import metadata
from pathlib import Path

from .deploy_configs import Daemon, dns
from .deploy_scrape import prometheus_yml, targets
from .deploy_site import File, Site, copied, fill, names, own, template


def container(_: Site) -> dict[str, File]:
    """What an image is built from; the wheel goes beside it."""
    made = dict(copied("container"))
    # Docker reads this name, podman and buildah the other.
    made["container/.dockerignore"] = made["container/.containerignore"]
    made["container/constraints.txt"] = File("\n".join(sorted(constraints("beamsieve"))) + "\n")
    return made


def constraints(package: str) -> set[str]:
    """``name==version`` of all that this installation's ``package`` needs: what was tested is what is built."""
    found: dict[str, str] = {}
    waiting = [package]
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            name = re.sub("[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]).lower()
            if name in found or "extra ==" in line or name.startswith(("nvidia-", "cuda-", "triton")):
                continue
            try:
                # A local version such as +cpu is another one in each index.
                found[name] = metadata.version(name).partition("+")[0]
            except metadata.PackageNotFoundError:
                continue  # for another system than this
            waiting.append(name)
    return {f"{name}=={version}" for name, version in found.items()}


def compose(site: Site) -> dict[str, File]:
    """The daemons with Prometheus, Alertmanager and Grafana."""
    common = names(site) | {"UID": site.owner[0], "GID": site.owner[1]}
    parts = []
    for one in site.daemons:
        written = site.written(one)
        binds = [(path, False) for path in written] + [(path, True) for path in site.only_read(one)]
        mine = common | own(one) | {"VOLUMES": "\n".join(_bind(path, only) for path, only in binds)}
        parts.append(fill(template("compose/daemon.yaml"), mine))
    addresses = {one.name: f"{dns(one.name)}:{one.port}" for one in site.daemons}
    return {
        "compose/compose.yaml": File(fill(template("compose/compose.yaml"), common | {"DAEMONS": "\n".join(parts)})),
        "compose/prometheus.yml": File(prometheus_yml("alertmanager:9093")),
        "compose/targets/beamsieve.json": File(targets(site, addresses)),
        "compose/page_token": File(secrets.token_urlsafe(24) + "\n", secret=True),
        "compose/.env": File(f"GRAFANA_PASSWORD={secrets.token_urlsafe(18)}\n", secret=True),
    }


def _bind(path: Path, only_read: bool) -> str:
    name = json.dumps(str(path).replace("$", "$$"), ensure_ascii=False)
    more = ", read_only: true" if only_read else ""
    return f"      - {{ type: bind, source: {name}, target: {name}{more} }}"


def kubernetes(site: Site) -> dict[str, File]:
    """Plain manifests: what all share, and a file per daemon."""
    common = names(site) | {"TOKEN": "change-me-" + secrets.token_urlsafe(24)}
    made = {"kubernetes/beamsieve.yaml": File(fill(template("kubernetes/beamsieve.yaml"), common), secret=True)}
    for one in site.daemons:
        mine = common | own(one) | _volumes(site, one)
        mine["CONFIG"] = textwrap.indent(one.text, "    ").rstrip()
        mine["CONFIG_HASH"] = hashlib.sha256(one.text.encode()).hexdigest()[:16]
        made[f"kubernetes/daemon-{dns(one.name)}.yaml"] = File(fill(template("kubernetes/daemon.yaml"), mine))
    return made


def claims(site: Site, one: Daemon) -> dict[str, Path]:
    """The volume claims a daemon's pod needs for what it reads, by name; nobody but the site can make them."""
    return {f"{dns(one.name)}-input-{number}": path for number, path in enumerate(site.only_read(one))}


def _volumes(site: Site, one: Daemon) -> dict[str, str]:
    mounts = [
        f"            - {{ name: data, mountPath: {json.dumps(str(path))}, subPath: output-{number} }}"
        for number, path in enumerate(site.written(one)[1:])
    ]
    volumes = []
    for name, path in claims(site, one).items():
        mounts.append(f"            - {{ name: {name}, mountPath: {json.dumps(str(path))}, readOnly: true }}")
        volumes.append(
            f"        # holds what lies in {path}\n        - name: {name}\n"
            f"          persistentVolumeClaim: {{ claimName: {name}, readOnly: true }}"
        )
    return {"MOUNTS": "\n".join(mounts), "VOLUMES": "\n".join(volumes)}
