"""``beamsieve deploy``: what it takes from configurations, what it writes where, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from beamsieve.stream.commands.deploy import deploy
from beamsieve.stream.commands.deploy_configs import daemon, dns, edited
from beamsieve.stream.commands.deploy_containers import constraints
from beamsieve.stream.commands.deploy_files import PARTS
from beamsieve.stream.commands.deploy_site import BLANK, TEMPLATES, fill
from typer.testing import CliRunner

app = typer.Typer()
app.command()(deploy)

HITS = """# ours
beamline: xfel_hits
source: {kind: dectris, endpoint: "tcp://eiger:31001", curve: {key_file: keys/me.key_secret}}
calibrate:
  kind: jungfrau
  dark: ["a.h5:/p0", a.h5:/p1, '/abs/b.h5:/p2']
  gain: null          # the stage's own
  mask: masks/mask.npy
  photon_energy_kev: 9
detector:
  shape: [512, 1024]
  geometry: {file: x.geom}
model:
  bundle: ./mine.pt   # by its path
files:
  directory: out
  instrument: SPB ü
service:
  grace_s: 40
"""
PICKS = (
    "beamline: cryoem_picks\nsource: {kind: folder, directory: /data/my session}\nfiles: {directory: /gpfs/50%/picks}\n"
)


def invoke(*arguments: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; anything but an exit is an error of the test."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def hits(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "hits.yaml"
    path.parent.mkdir()
    path.write_text(HITS)
    return path


@pytest.fixture
def picks(tmp_path: Path) -> Path:
    path = tmp_path / "picks.yaml"
    path.write_text(PICKS)
    return path


def everything(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- configurations ----------------------------------------------------------------------------------------------


def test_relative_names_become_absolute_and_nothing_else_changes(hits: Path) -> None:
    one = daemon(str(hits), 9500, Path("/srv/beam"))
    here = hits.parent
    assert one.text == HITS.replace("keys/me", f'"{here}/keys/me').replace("key_secret}", 'key_secret"}').replace(
        '["a.h5:/p0", a.h5:/p1,', f'["{here}/a.h5:/p0", "{here}/a.h5:/p1",'
    ).replace("masks/mask.npy", f'"{here}/masks/mask.npy"').replace("x.geom", f'"{here}/x.geom"').replace(
        "./mine.pt", f'"{here}/mine.pt"'
    ).replace("directory: out", 'directory: "/srv/beam/hits/out"').replace("grace_s", "port: 9500\n  grace_s")
    assert one.reads == tuple(sorted((Path("/abs"), here, here / "keys", here / "masks")))
    assert one.writes == (Path("/srv/beam/hits/out"),)
    assert (one.name, one.port, one.grace_s, one.instrument, one.local) == ("hits", 9500, 40, "SPB ü", True)
    again = hits.with_name("again.yaml")
    again.write_text(one.text)
    assert daemon(str(again), None, Path("/other")).text == one.text


def test_a_journal_of_its_own_is_a_folder_that_is_written(picks: Path) -> None:
    picks.write_text(PICKS.replace("/data/my session", "/data/my session, journal: j/x.sqlite"))
    one = daemon(str(picks), None, Path("/srv"))
    assert one.writes == (Path("/gpfs/50%/picks"), Path("/srv/picks/j"))
    assert one.reads == (Path("/data/my session"),)


@pytest.mark.parametrize(
    ("text", "place", "after"),
    [
        ("a: {b: 1} # c\n", ("a", "b"), "a: {b: 7} # c\n"),
        ("a: {c: 1}\n", ("a", "b"), "a: {b: 7, c: 1}\n"),
        ("a:\n   c: 1\n", ("a", "b"), "a:\n   b: 7\n   c: 1\n"),
        ("a: {}\nd: 2\n", ("a", "b"), "a:  {b: 7}\nd: 2\n"),
        ("a:\nd: 2\n", ("a", "b"), "a: {b: 7}\nd: 2\n"),
        ("d: 2", ("a", "b"), "d: 2\n\na:\n  b: 7\n"),
        ("a: &x {b: 1}\nd: *x\n", ("a", "b"), "a: &x {b: 7}\nd: *x\n"),
        ("a: [1, {b: 2}]", ("a", 1, "b"), "a: [1, {b: 7}]"),
        ("a: {b: |\n    long\n    text\n  }\n", ("a", "b"), None),
    ],
)
def test_a_value_is_put_in_place_and_the_rest_stays(text: str, place: tuple[str, ...], after: str | None) -> None:
    if after is None:  # no YAML at all: block text in braces
        with pytest.raises(yaml.YAMLError):
            edited(text, {place: 7})
        return
    assert edited(text, {place: 7}) == after
    found = yaml.safe_load(after)
    for name in place:
        found = found[name]
    assert found == 7


@pytest.mark.parametrize("config", ["xfel_hits", "cryoem_picks"])
def test_a_configuration_that_ships_gets_folders_below_the_data(config: str) -> None:
    one = daemon(config, None, Path("/srv/beam"))
    assert one.text.startswith("# The smallest useful configuration"), "the editor's schema line is of no use elsewhere"
    assert all(path.is_relative_to(f"/srv/beam/{config}") for path in (*one.writes, *one.reads))
    assert bool(one.endpoint) == (config == "xfel_hits")


# --- what is written ---------------------------------------------------------------------------------------------


def test_every_template_is_filled_in_and_every_part_written(tmp_path: Path, hits: Path, picks: Path) -> None:
    code, out, err = invoke(tmp_path / "site", "--config", hits, "--config", picks, "--port", 9470, "--port", 9471)
    assert code == 0, err
    found = everything(tmp_path / "site")
    assert {Path(name).parts[0] for name in found} == {*PARTS, "README.md"}
    for name, text in found.items():
        assert not BLANK.findall(text), f"{name}: a blank was left"
    assert {tmp_path / "site" / name for name in found} == {Path(line) for line in out.split("\n\n")[0].splitlines()}, (
        "what was written is listed"
    )
    shipped = {entry.name for entry in TEMPLATES.joinpath("systemd").iterdir()}
    assert shipped == {"beamsieve@.service", "beamsieve.env", "install.sh", "paths.conf"}
    assert "systemctl enable --now beamsieve@hits beamsieve@picks" in out
    assert "docker compose up -d" in out
    assert "sbatch " in out
    assert "kubectl apply" in out
    for line in out.split("\n\n", 1)[1].splitlines():
        assert line.strip().rstrip(":") in found["README.md"]


def test_only_some_parts_and_what_they_need(tmp_path: Path, hits: Path) -> None:
    code, out, _ = invoke(tmp_path / "a", "--config", hits, "--only", "systemd,slurm")
    assert code == 0
    assert {Path(name).parts[0] for name in everything(tmp_path / "a")} == {"README.md", "config", "systemd", "slurm"}
    assert "docker" not in out
    assert invoke(tmp_path / "b", "--config", hits, "--only", "compose")[0] == 0
    assert {"container", "prometheus", "alertmanager", "grafana"} <= {path.name for path in (tmp_path / "b").iterdir()}


def test_targets_have_the_labels_that_rules_go_by(tmp_path: Path, hits: Path, picks: Path) -> None:
    picks.write_text(PICKS + "service: {host: 10.1.2.3, port: 9999}\n")
    arguments = ("--config", hits, "--config", picks, "--instrument", "Krios 2", "--only", "compose,prometheus")
    assert invoke(tmp_path / "site", *arguments)[0] == 0
    found = json.loads((tmp_path / "site/prometheus/targets/beamsieve.json").read_text())
    assert found == [
        {"targets": ["127.0.0.1:9464"], "labels": {"instrument": "SPB ü", "beamline": "xfel_hits"}},
        {"targets": ["10.1.2.3:9999"], "labels": {"instrument": "Krios 2", "beamline": "cryoem_picks"}},
    ]
    inside = json.loads((tmp_path / "site/compose/targets/beamsieve.json").read_text())
    assert [one["targets"] for one in inside] == [["hits:9464"], ["picks:9999"]]
    outside = yaml.safe_load((tmp_path / "site/prometheus/prometheus.yml").read_text())
    assert outside["scrape_configs"][0]["authorization"]["type"] == "Bearer", "that address asks for the token"


def test_what_is_there_is_not_overwritten_unless_asked_and_secrets_never(tmp_path: Path, hits: Path) -> None:
    site = tmp_path / "site"
    arguments = (site, "--config", hits)
    assert invoke(*arguments)[0] == 0
    before = everything(site)
    assert stat.S_IMODE((site / "compose/page_token").stat().st_mode) == 0o600
    assert stat.S_IMODE((site / "compose/.env").stat().st_mode) == 0o600
    assert os.access(site / "systemd/install.sh", os.X_OK)
    code, _, err = invoke(*arguments)
    assert code == 0
    assert f"{len(before)} files stay as they were" in err
    code, _, err = invoke(*arguments, "--user", "xfel")
    assert code == 2
    assert err.splitlines()[0].startswith(f"{site}: there already, and different: ")
    assert "systemd/beamsieve@.service" in err
    assert "--force" in err
    assert everything(site) == before, "nothing at all was written"
    assert invoke(*arguments, "--user", "xfel", "--force")[0] == 0
    after = everything(site)
    assert "User=xfel" in after["systemd/beamsieve@.service"]
    for name in ("compose/page_token", "compose/.env"):
        assert after[name] == before[name]
    assert not list(site.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_exit_1(tmp_path: Path, hits: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = invoke(tmp_path / "file" / "site", "--config", hits)
    assert code == 1
    assert err.splitlines()[0].endswith("Not a directory; name another folder")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "{hits}", "--config", "{hits}"], "--config: hits is also the name of hits"),
        (["--config", "{hits}", "--config", "{picks}"], "service.port: hits and picks both listen on 9464"),
        (["--config", "{hits}", "--port", "1", "--port", "2"], "--port: 2 given for 1 configurations"),
        (["--config", "{space}"], "a unit takes its name; use letters"),
        (["--config", "{zero}"], "zero.yaml:4: service.port: 0 is a different port each time"),
        (["--config", "{wrong}"], "wrong.yaml:2: flaw: unknown; did you mean flow?"),
        (["--config", "{grafana}"], "--config: grafana is also a service of the deployment itself"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: "),
        (["--only", "sytemd"], "--only sytemd: unknown; did you mean systemd?"),
        (["--user", "Root Me"], "--user Root Me: no name of a user"),
        (["--data", "/srv/my data"], "--data /srv/my data: use letters"),
        (["--config-dir", "/etc/$HOME"], "--config-dir /etc/$HOME: use letters"),
        (["--beamsieve", "/nowhere/beamsieve"], "--beamsieve /nowhere/beamsieve: is no program"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path, hits: Path, picks: Path, arguments: list[str], said: str
) -> None:
    texts = {
        "space": PICKS,
        "zero": PICKS + "service: {port: 0}\n",
        "wrong": PICKS.replace("\n", "\nflaw: 1\n", 1),
        "grafana": PICKS,
    }
    paths = {"hits": hits, "picks": picks}
    for name, text in texts.items():
        paths[name] = tmp_path / ("my space.yaml" if name == "space" else f"{name}.yaml")
        paths[name].write_text(text)
    paths["picks"].write_text(PICKS + "service: {port: 9464}\n")
    code, _, err = invoke(tmp_path / "site", *(argument.format_map(paths) for argument in arguments))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "site").exists()


def test_a_blank_nobody_knows_is_an_error_and_not_left() -> None:
    assert (
        fill("a@USER@b %i ${HOME} B:TERM@120 @system-service", {"USER": 5})
        == "a5b %i ${HOME} B:TERM@120 @system-service"
    )
    with pytest.raises(KeyError):
        fill("@NOBODY@", {})


def test_names_as_dns_allows_them() -> None:
    assert [dns(name) for name in ("xfel_hits", "A.b__c", "x-")] == ["xfel-hits", "a-b-c", "x"]


def test_images_are_built_from_the_versions_that_are_installed() -> None:
    found = dict(line.split("==") for line in constraints("beamsieve"))
    assert found["torch"] == "2.13.0"
    assert {"numpy", "pyzmq", "h5py", "starlette", "typing-extensions"} <= set(found)
    assert not {"pytest", "ruff", "selenium"} & set(found), "what only developers need stays out"
    assert not any("+" in version for version in found.values())
