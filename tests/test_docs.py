"""The documentation: what it shows is run, what follows from the code is what the code says, links lead somewhere."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from beamsieve.models.bundle import quiet_torchscript, save_bundle
from beamsieve.models.card import _CARD

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
BLOCK = re.compile(r"(?:<!-- run(?:: (?P<how>[^>]*))? -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code in a page; ``how`` is None where it is only shown."""

    how: str | None
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        runs = match[0].startswith("<!-- run")
        found.append(Block((match["how"] or "").strip() if runs else None, match["language"], match["code"]))
    return found


def the(page: Path, how: str, language: str = "sh") -> str:
    """The code of the one block of a page that is run in this way."""
    (code,) = [block.code for block in blocks(page) if block.how == how and block.language == language]
    return code


def changed(code: str, changes: Mapping[str, str]) -> str:
    """The code with other values; each must be in it, so that page and test go together."""
    for old, new in changes.items():
        assert old in code, f"{old!r} is not in:\n{code}"
        code = code.replace(old, new)
    return code


class OneLit(torch.nn.Module):
    """Says "one" for patterns of 20 000 photons and more, else "none": a stand-in for the network that ships."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = (x.float().sum(dim=[1, 2, 3]) >= 20000.0).float()
        nothing = torch.zeros_like(one)
        return torch.stack([1.0 - one, one, nothing, nothing, nothing], 1)


CARD = {
    "version": "0",
    "task": "hits",
    "input": {"name": "photons", "shape": [1, 128, 128], "dtype": "uint16", "normalisation": "none"},
    "output": {"classes": ["0", "1", "2", "3", "4+"], "kind": "probabilities"},
    "threshold": 0.5,
    "training": {},
    "scores": {},
    "trained_by": "nobody",
    "licence": "none",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    with quiet_torchscript():
        save_bundle(folder, "hits-resnet10", torch.jit.script(OneLit().eval()), CARD)
    return folder


@pytest.fixture
def place(tmp_path: Path, models: Path) -> tuple[Path, dict[str, str]]:
    """A folder like a fresh clone, and the environment of a terminal in it."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": commands, "BEAMSIEVE_MODELS": str(models), "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    return tmp_path, {**os.environ, **own}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shell(code: str, place: tuple[Path, dict[str, str]]) -> subprocess.CompletedProcess[str]:
    folder, environment = place
    return subprocess.run(
        ["bash", "-eu", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_tutorial_by_hand_in_terminals(place: tuple[Path, dict[str, str]]) -> None:
    folder, environment = place
    page = DOCS / "tutorial.md"
    port, endpoint = free_port(), f"tcp://127.0.0.1:{free_port()}"
    detector = changed(
        the(page, "terminal 1"),
        {"--seconds 60": f"--frames 150 --pool 1 --endpoint {endpoint} --json sent.json", "--hits 0.1": "--hits 0.3"},
    )
    daemon = changed(
        the(page, "terminal 2"),
        {
            "beamsieve run xfel_hits": "exec beamsieve run xfel_hits --json found.json "
            f"--set source.endpoint={endpoint} --set service.port={port}"
        },
    )
    ask = changed(the(page, "terminal 3"), {"9464": str(port)})
    with subprocess.Popen(["bash", "-c", daemon], cwd=folder, env=environment, stderr=subprocess.PIPE) as running:
        try:
            sent = shell(detector, place)
            assert sent.returncode == 0, sent.stderr
            asked = shell(f"until ({ask}) | grep -q 'read_total 150'; do sleep 0.1; done; {ask}", place)
            assert '"ready": true' in asked.stdout
            assert 'beamsieve_frames_total{outcome="accepted"}' in asked.stdout
            assert "beamsieve_verdicts_total" in asked.stdout
            running.send_signal(signal.SIGINT)
            said = running.communicate(timeout=20)[1].decode()
        finally:
            running.kill()
    assert running.returncode == 0, said
    found = json.loads((folder / "found.json").read_text())["xfel_hits"]
    assert found["read"] == 150 == found["accepted"] + found["rejected"]
    truth = json.loads((folder / "sent.json").read_text())
    assert truth["sent"] == 150
    assert found["accepted"] >= truth["true_hits"] // 2 > 0
    assert "hit rate" in said
    looked = shell("beamsieve inspect out/1_0001.cxi --png hits.png", place)
    assert looked.returncode == 0, looked.stdout
    assert (folder / "hits.png").stat().st_size > 1000
    scripts = [block for block in blocks(DOCS / "howto" / "files.md") if block.how == "on a file"]
    said_of_file = []
    for number, script in enumerate(scripts):
        (folder / f"{number}.py").write_text(script.code, encoding="utf-8")
        read = shell(f"python -W error {number}.py out/1_0001.cxi", place)
        assert read.returncode == 0, read.stderr
        said_of_file.append(read.stdout)
    assert f"{found['accepted']} hits" in said_of_file[0]
    assert len(said_of_file) == 3


def test_tutorial_configuration_and_the_mistakes_it_shows(place: tuple[Path, dict[str, str]]) -> None:
    page = DOCS / "tutorial.md"
    good = shell(the(page, ""), place)
    assert good.returncode == 0, good.stderr
    wrong = shell(the(page, "fails with 2"), place)
    assert wrong.returncode == 2
    shown = [block.code for block in blocks(page) if not block.language and "wrong.yaml" in block.code]
    assert [wrong.stderr] == shown


def test_tutorial_of_micrographs_in_terminals(place: tuple[Path, dict[str, str]]) -> None:
    folder, environment = place
    page = DOCS / "tutorial-cryoem.md"
    port = free_port()
    shown = [block.code for block in blocks(page) if not block.language]
    quick = {"port: 9465": f"port: {port}", "settle_s: 3 ": "settle_s: 0.3 ", "incomplete_s: 30": "incomplete_s: 2"}
    checked = shell(changed(the(page, ""), quick), place)
    assert checked.stdout in shown, checked.stderr
    wrong = shell(the(page, "fails with 2"), place)
    assert wrong.returncode == 2
    assert wrong.stderr in shown
    daemon = "exec " + changed(the(page, "terminal 1"), {"first.yaml": "first.yaml --json found.json"})
    microscope = changed(the(page, "terminal 2"), {"--count 10 --every 5": "--count 3 --every 0.2"})
    seen = f"until curl -s http://127.0.0.1:{port}/metrics | grep -q '{{outcome=\"failed\"}} 1'; do sleep 0.2; done"
    with subprocess.Popen(["bash", "-c", daemon], cwd=folder, env=environment, stderr=subprocess.PIPE) as running:
        try:
            dropped = shell(f"{microscope}\n{seen}", place)
            assert dropped.returncode == 0, dropped.stderr
            running.send_signal(signal.SIGINT)
            said = running.communicate(timeout=20)[1].decode()
        finally:
            running.kill()
    assert running.returncode == 0, said
    found = json.loads((folder / "found.json").read_text())["cryoem_picks"]
    assert (found["accepted"], found["failures"]) == (2, {"truncated": 1})
    assert "3 micrographs read = 2 accepted" in said
    assert "WARNING beamsieve.stream.beamlines.cryoem_picks: truncated: micrograph_00002.mrc: " in said
    assert "2 done, 1 set aside" in shell(the(page, "status"), place).stdout
    what_if = shell(the(page, "dry"), place)
    promised = re.search(r"threshold 0\.5 would give (\d+) picks", what_if.stdout)
    assert promised, what_if.stderr
    moved = shell(the(page, "move"), place)
    assert f"threshold 0.5 gives {promised[1]} picks" in moved.stdout, moved.stderr
    assert len((folder / "picks" / "picks.csv").read_text().splitlines()) == int(promised[1]) + 1
    true = (folder / "truth.csv").read_text().count(",particle,")
    assert 0.7 * true < int(promised[1]) < 1.3 * true
    assert int(promised[1]) < found["particles"]
    again = shell(the(page, "pick"), place)
    assert again.returncode == 1, "one of the files is cut short"
    assert f"{promised[1]} particles in 2 micrographs, 1 failed" in again.stdout, again.stderr
    pictures = sorted(path.name for path in (folder / "again" / "pictures").iterdir())
    assert pictures == ["micrograph_00001.png", "micrograph_00003.png"]


def test_own_model_script_and_its_commands(place: tuple[Path, dict[str, str]]) -> None:
    folder, _ = place
    page = DOCS / "howto" / "own-model.md"
    (folder / "save_model.py").write_text(the(page, "", "python"), encoding="utf-8")
    made = shell("python -W error save_model.py", place)
    assert made.returncode == 0, made.stderr
    verified = shell(the(page, ""), place)
    assert verified.returncode == 0, verified.stderr
    assert "tiny: holds" in verified.stdout
    assert made.stdout.split()[0] in verified.stdout
    used = shell("BEAMSIEVE_MODELS=my-models beamsieve check xfel_hits --set model.bundle=tiny", place)
    assert "model tiny" in used.stdout, used.stderr


def test_own_model_page_names_every_field_of_the_card() -> None:
    page = (DOCS / "howto" / "own-model.md").read_text(encoding="utf-8")
    for name in _CARD:
        assert f"`{name}`" in page, name


@pytest.fixture(scope="module")
def generate() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("docs.generate")


@pytest.mark.parametrize("name", ["settings-xfel_hits.md", "settings-cryoem_picks.md", "metrics.md", "cli.md"])
def test_reference_is_what_the_code_says(generate: Any, name: str) -> None:
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert generate.PAGES[name]() == generate.PAGES[name](), "not deterministic"
    assert committed == generate.PAGES[name](), f"docs/reference/{name} is not what the code says: run `make docs`"


@pytest.mark.parametrize("beamline", ["xfel_hits", "cryoem_picks"])
def test_schema_is_what_the_code_says(generate: Any, beamline: str) -> None:
    """Compared by fields, defaults and descriptions: how pydantic spells a type changes with its version."""
    committed = json.loads((DOCS / "reference" / f"{beamline}.schema.json").read_text(encoding="utf-8"))
    now = json.loads(generate.PAGES[f"{beamline}.schema.json"]())
    assert essence(committed) == essence(now), f"docs/reference/{beamline}.schema.json is old: run `make docs`"


def essence(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            field: (about.get("default"), about.get("description"), field in block.get("required", ()))
            for field, about in block.get("properties", {}).items()
        }
        for name, block in {"": schema, **schema["$defs"]}.items()
    }


def test_a_drift_would_be_noticed(generate: Any, tmp_path: Path) -> None:
    for name in generate.PAGES:
        (tmp_path / name).write_text((DOCS / "reference" / name).read_text(encoding="utf-8"), encoding="utf-8")
    settings = tmp_path / "settings-xfel_hits.md"
    settings.write_text(settings.read_text(encoding="utf-8").replace("`wait_ms`", "`wait_s`"), encoding="utf-8")
    assert "settings-xfel_hits.md" in generate.stale(tmp_path)


def test_every_word_of_a_metric_is_explained() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert "(not described)" not in page, "docs/reference_metrics.py: say what the word means in WORDS"
    assert "beamsieve_frames_total" in page


def test_yaml_that_is_shown_is_valid() -> None:
    """Fragments of configurations use words that exist, with values that can be."""
    from beamsieve.stream.commands.run import BEAMLINES, settings_of
    from beamsieve.stream.flow.settings import check

    whole = {name: yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")) for name in BEAMLINES}
    shown = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language == "yaml":
                fragment = yaml.safe_load(block.code)
                # A page of cryo-EM says so in its name; a fragment may say it itself.
                name = fragment.get("beamline", BEAMLINES["cryoem" in page.name])
                check({**whole[name], **fragment}, settings_of(name), f"{page.name}: {block.code}")
                shown += 1
    assert shown >= 5


def test_commands_that_are_shown_exist(generate: Any) -> None:
    """Every ``beamsieve …`` in a block of shell code is a command, and its long options are options of it."""
    reference = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    known: dict[str, set[str]] = {}
    for section in reference.split("## `")[1:]:
        rows = re.findall(r"^\| `([^|]*)` \|", section, re.MULTILINE)
        known[section.partition("`")[0]] = {word for row in rows for word in re.findall(r"--[a-z0-9-]+", row)}
    shown = 0
    for page in PAGES:
        for block in blocks(page):
            for line in block.code.replace("\\\n", " ").splitlines() if block.language == "sh" else ():
                for words in re.findall(r"(?<![\w./-])(?<!-[un] )beamsieve [^#|;&]*", line):
                    parts = words.split()
                    names = [" ".join(parts[:n]) for n in (3, 2) if " ".join(parts[:n]) in known]
                    assert names, f"{page.name}: {words}"
                    for option in re.findall(r"(?<!\S)--[a-z0-9-]+", words):
                        assert option in known[names[0]], f"{page.name}: {option} in {words}"
                    shown += 1
    assert shown >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
