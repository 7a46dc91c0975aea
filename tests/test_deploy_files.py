"""What ``beamsieve deploy`` wrote, judged by the programs it is for: systemd, promtool, bash; else by structure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from beamsieve.stream.commands.deploy import deploy
from typer.testing import CliRunner

HITS = """beamline: xfel_hits
source: {kind: dectris, endpoint: "tcp://eiger:31001"}
calibrate: {kind: standard, dark: dark.npy}
files: {directory: out, instrument: SPB}
service: {grace_s: 40}
"""
PICKS = (
    "beamline: cryoem_picks\nsource: {kind: folder, directory: /data/my session}\nfiles: {directory: /gpfs/50%/picks}\n"
)
EXPOSURE = 2.5
"""The most that ``systemd-analyze security`` may say of the unit (0 is best, 10 worst; 9.6 is a unit without any)."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "xfel_hits.yaml").write_text(HITS)
    (folder / "krios.yaml").write_text(PICKS)
    app = typer.Typer()
    app.command()(deploy)
    options = f"--port 9464 --port 9465 --user xfel --data /srv/beamsieve --config {folder}/xfel_hits.yaml"
    done = CliRunner().invoke(app, [str(folder / "out"), *options.split(), "--config", str(folder / "krios.yaml")])
    assert done.exit_code == 0, done.output
    return folder / "out"


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def run(*command: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=50, check=False, **more
    )


def unit(path: Path) -> dict[str, list[str]]:
    """Every setting of a unit and its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", " ")):
            found.setdefault(name, []).append(value)
    return found


# --- systemd -----------------------------------------------------------------------------------------------------


@pytest.fixture
def instances(site: Path, tmp_path: Path) -> Path:
    """The units as the install script lays them out, under the names of their instances."""
    done = run("bash", site / "systemd/install.sh", env={"DESTDIR": str(tmp_path / "root"), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    units = tmp_path / "root/etc/systemd/system"
    for name in ("xfel_hits", "krios"):
        shutil.copy(units / "beamsieve@.service", units / f"beamsieve@{name}.service")
    return units


def test_systemd_finds_nothing_wrong_with_the_units(instances: Path) -> None:
    for name in ("xfel_hits", "krios"):
        done = run(need("systemd-analyze"), "verify", instances / f"beamsieve@{name}.service")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    text = (instances / "beamsieve@.service").read_text()
    (instances / "beamsieve@xfel_hits.service").write_text(text.replace("WatchdogSec=60", "WatchdogSec=often"))
    assert "often" in run(need("systemd-analyze"), "verify", instances / "beamsieve@xfel_hits.service").stderr


def test_systemd_counts_it_among_the_hardened(instances: Path) -> None:
    path = instances / "beamsieve@xfel_hits.service"
    done = run(need("systemd-analyze"), "security", "--offline=true", "--no-pager", path)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= EXPOSURE


def test_the_unit_restarts_what_broke_and_not_what_is_configured_wrongly(site: Path) -> None:
    found = unit(site / "systemd/beamsieve@.service")
    assert found["Type"] == ["notify"]
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2"]
    assert found["User"] == found["Group"] == ["xfel"]
    assert "/srv/beamsieve" in found["ReadWritePaths"]
    for needed in ("PrivateDevices", "MemoryDenyWriteExecute", "ProtectClock", "ProcSubset", "PrivateUsers"):
        assert needed not in found, f"{needed} keeps torch or CUDA from running"
    for name, least in (("xfel_hits", 40), ("krios", 20)):
        own = unit(site / f"systemd/beamsieve@{name}.service.d/paths.conf")
        assert int(own["TimeoutStopSec"][0]) > least
    assert own["ReadWritePaths"] == ['"/srv/beamsieve" "/gpfs/50%%/picks"'], "a specifier must not be read into it"
    assert own["RequiresMountsFor"] == ['"/srv/beamsieve" "/gpfs/50%%/picks" "/data/my session"']


def test_the_install_script_puts_everything_where_the_unit_looks(instances: Path) -> None:
    root = instances.parents[2]
    for name in ("xfel_hits", "krios"):
        assert (root / f"etc/beamsieve/{name}.yaml").is_file()
        assert (instances / f"beamsieve@{name}.service.d/paths.conf").is_file()
    for folder in ("srv/beamsieve", "gpfs/50%/picks"):
        assert (root / folder).is_dir()
    assert unit(instances / "beamsieve@.service")["AssertPathExists"] == ["/etc/beamsieve/%i.yaml"]


def test_the_install_script_keeps_an_environment_that_was_edited(site: Path, tmp_path: Path) -> None:
    environment = tmp_path / "etc/beamsieve/beamsieve.env"
    environment.parent.mkdir(parents=True)
    environment.write_text("CUDA_VISIBLE_DEVICES=3\n")
    for _ in range(2):
        done = run("bash", site / "systemd/install.sh", env={"DESTDIR": str(tmp_path), "PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done.stderr
    assert environment.read_text() == "CUDA_VISIBLE_DEVICES=3\n"


# --- Prometheus, Alertmanager, Grafana ---------------------------------------------------------------------------


def test_prometheus_takes_both_configurations(site: Path, tmp_path: Path) -> None:
    promtool = need("promtool")
    done = run(promtool, "check", "config", site / "prometheus/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    # As the container sees it.
    shutil.copy(site / "compose/prometheus.yml", tmp_path)
    shutil.copytree(site / "compose/targets", tmp_path / "targets")
    shutil.copytree(site / "prometheus/rules", tmp_path / "rules")
    done = run(promtool, "check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    inside = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert inside["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]
    assert inside["scrape_configs"][0]["job_name"] == "beamsieve", "rules go by this name"


def test_alertmanager_takes_its_configuration(site: Path) -> None:
    done = run(need("amtool"), "check-config", site / "alertmanager/alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_prometheus_and_the_folder_that_compose_gives_it(site: Path) -> None:
    folder = site / "grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((folder / "dashboards/beamsieve.yml").read_text())["providers"][0]
    grafana = compose(site)["services"]["grafana"]
    assert source["url"].lstrip("$") in grafana["environment"]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in grafana["volumes"])


# --- containers --------------------------------------------------------------------------------------------------


def compose(site: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((site / "compose/compose.yaml").read_text())
    return found


def test_compose_is_of_this_machine_only_and_locked_down(site: Path) -> None:
    services = compose(site)["services"]
    assert set(services) == {"xfel-hits", "krios", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["restart"] == "unless-stopped"
        assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: a version, never the latest"
    for name in ("xfel-hits", "krios"):
        assert services[name]["read_only"]
        assert services[name]["secrets"] == ["page_token"]
        assert services[name]["user"].split(":")[0] != "0"
    for name in ("prometheus", "alertmanager", "grafana"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    assert services["xfel-hits"]["stop_grace_period"] == "51s"


def test_everything_that_compose_mounts_is_there_or_is_the_sites_own(site: Path) -> None:
    found = compose(site)
    for service in found["services"].values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                path = (site / "compose" / source).resolve()
                assert path.exists() or path == site / "grafana/dashboards", source
            else:
                assert source.startswith("/") or source in found["volumes"]
    binds = [volume for volume in found["services"]["krios"]["volumes"] if volume["source"].startswith("/")]
    assert [(bind["source"], bind.get("read_only", False)) for bind in binds] == [
        ("/srv/beamsieve", False),
        ("/gpfs/50%/picks", False),
        ("/data/my session", True),
    ]
    assert (site / "compose" / found["secrets"]["page_token"]["file"]).is_file()
    assert "GRAFANA_PASSWORD=" in (site / "compose/.env").read_text()


def test_compose_fits_its_schema(site: Path) -> None:
    """Where check-jsonschema is installed, which brings the schema of the Compose Specification."""
    package = pytest.importorskip("check_jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(package.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(compose(site), json.loads(schema.read_text()))


Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


VARIANTS = ("Containerfile", "Containerfile.cuda")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_runs_as_nobody_special_and_says_whether_it_is_well(site: Path, variant: str) -> None:
    found = instructions(site / "container" / variant)
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert {word for word, _ in found} == known | {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    default = dict(rest.split("=") for word, rest in found[:1])["PYTHON"]
    assert re.match(r"3\.\d+\.\d+-", default), "a version of Python to the last number, never the latest"
    stages = [number for number, (word, _) in enumerate(found) if word == "FROM"]
    assert len(stages) == 2
    final = dict(found[stages[1] :])
    assert final["USER"] == "10001:10001"
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "org.opencontainers.image.version=" in final["LABEL"]
    for word in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(final[word]), list), f"{word}: without a shell, which would keep the signal"
    text = (site / "container" / variant).read_text().lower()
    assert not re.search(r"(password|token|secret|api_?key)", text)
    assert not re.search(r":latest|\bsudo\b|--break-system|curl [^|]*\|", text)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_takes_nothing_that_is_kept_out_of_the_build(site: Path, variant: str) -> None:
    allowed = {line[1:] for line in (site / "container/.containerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        rest.split()[0]
        for word, rest in instructions(site / "container" / variant)
        if word == "COPY" and "--from" not in rest
    }
    assert copied == allowed == {"dist/beamsieve-*.whl", "constraints.txt"}
    assert (site / "container/.dockerignore").read_text() == (site / "container/.containerignore").read_text()
    assert "torch==2.13.0" in (site / "container/constraints.txt").read_text().split()


def test_the_variants_differ_in_where_torch_comes_from(site: Path) -> None:
    processor, cuda = (instructions(site / "container" / variant) for variant in VARIANTS)
    differ = [(a, b) for a, b in zip(processor, cuda, strict=True) if a != b]
    assert [a[0] for a, _ in differ] == ["ARG", "ENV"]
    assert "whl/cpu" in differ[0][0][1]
    assert "NVIDIA_DRIVER_CAPABILITIES" in differ[1][1][1]


# --- Kubernetes --------------------------------------------------------------------------------------------------


def manifests(site: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for path in sorted((site / "kubernetes").glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


def test_manifests_belong_together(site: Path) -> None:
    found = manifests(site)
    kinds = ("ConfigMap", "PersistentVolumeClaim", "Deployment", "Service")
    shared = {("Namespace", "beamsieve"), ("Secret", "beamsieve-page"), ("NetworkPolicy", "beamsieve")}
    assert set(found) == shared | {(kind, name) for kind in kinds for name in ("xfel-hits", "krios")}
    for (kind, _), one in found.items():
        assert kind == "Namespace" or one["metadata"]["namespace"] == "beamsieve"
    for name, file in (("xfel-hits", "xfel_hits.yaml"), ("krios", "krios.yaml")):
        pod = found["Deployment", name]["spec"]["template"]
        daemon = pod["spec"]["containers"][0]
        assert found["Service", name]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert found["Deployment", name]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert daemon["args"][:2] == ["run", f"/etc/beamsieve/{file}"]
        assert found["ConfigMap", name]["data"][file] == (site / "config" / file).read_text()
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in daemon["volumeMounts"]} <= volumes
        assert found["Service", name]["spec"]["publishNotReadyAddresses"]
    mounts = found["Deployment", "krios"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "krios-input-0", "mountPath": "/data/my session", "readOnly": True} in mounts
    assert {"name": "data", "mountPath": "/gpfs/50%/picks", "subPath": "output-0"} in mounts


def test_pods_keep_to_the_restricted_standard(site: Path) -> None:
    for (kind, _), one in manifests(site).items():
        if kind != "Deployment":
            continue
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in (*pod["containers"], *pod["initContainers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
        daemon = pod["containers"][0]
        assert daemon["livenessProbe"]["httpGet"]["path"] == daemon["startupProbe"]["httpGet"]["path"] == "/healthz"
        assert daemon["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert pod["terminationGracePeriodSeconds"] in {51, 71}


def test_manifests_fit_the_schemas_of_kubernetes(site: Path) -> None:
    """Where kubernetes-validate is installed, which brings them."""
    package = pytest.importorskip("kubernetes_validate")
    for one in manifests(site).values():
        package.validate(one, "1.32", strict=True)


# --- Slurm -------------------------------------------------------------------------------------------------------

DAEMON = """import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), time.sleep(0.3), sys.exit(@CODE@)))
print("started", *sys.argv[1:], flush=True)
time.sleep(30)
"""
SRUN = f"""#!@PYTHON@
# Slurm's srun, as far as it matters here: SIGTERM kills the step at once, without asking it.
import signal, subprocess, sys
step = subprocess.Popen([sys.executable, "-c", {DAEMON!r}, *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: step.kill())
open("step.pid", "w").write(str(step.pid))
sys.exit(step.wait() % 256)
"""
SCANCEL = '#!/bin/bash\necho "$@" > scancel.log\n[ "$2" = 77.0 ] && kill -TERM $(cat step.pid)\n'


def test_the_batch_file_is_bash_and_asks_for_a_warning(site: Path) -> None:
    path = site / "slurm/beamsieve.sbatch"
    assert run("bash", "-n", path).returncode == 0
    asked = re.findall(r"^#SBATCH --(\S+)", path.read_text(), re.M)
    assert {"signal=B:TERM@120", "requeue", "ntasks=1", "open-mode=append"} <= set(asked)
    if shutil.which("shellcheck"):
        done = run("shellcheck", path, site / "systemd/install.sh")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_is_told_to_end_drains_the_daemon(site: Path, tmp_path: Path, code: int) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scancel", SCANCEL)):
        (programs / name).write_text(text.replace("@PYTHON@", sys.executable).replace("@CODE@", str(code)))
        (programs / name).chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(tmp_path)}
    job = subprocess.Popen(
        ["bash", site / "slurm/beamsieve.sbatch", "my config.yaml"],
        env=environ | {"TMPDIR": str(scratch)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    started = job.stdout.readline()
    port = re.search(r"--set service\.port=(\d+)", started)
    assert port, started
    assert " run my config.yaml --quiet --json " in started
    assert (tmp_path / "beamsieve-77.url").read_text().startswith(f"http://127.0.0.1:{port[1]}/\n")
    assert list(scratch.iterdir())
    job.terminate()
    out, err = job.communicate(timeout=20)
    assert (job.returncode, out) == (code, "drained\n"), err
    assert "the daemon drains" in err
    assert (tmp_path / "scancel.log").read_text() == "--signal=TERM 77.0\n"
    assert not list(scratch.iterdir()), "the scratch folder is removed"
    assert not (tmp_path / "beamsieve-77.url").exists()


def test_a_job_without_a_configuration_says_how_it_is_used(site: Path, tmp_path: Path) -> None:
    done = run("bash", site / "slurm/beamsieve.sbatch", cwd=tmp_path)
    assert done.returncode != 0
    assert "usage: sbatch beamsieve.sbatch CONFIGURATION.yaml" in done.stderr
