"""The wheel holds everything, and the repository keeps its own rules."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import beamsieve
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_SHIPPED = {"tests", "benchmarks", "docs", "build", "dist"}


def test_every_folder_of_code_is_in_the_list_of_packages() -> None:
    found = {"beamsieve"}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts[:-1]
        if parts and parts[0] not in NOT_SHIPPED and not any(part.startswith((".", "__")) for part in parts):
            found.add(".".join(("beamsieve", *parts)))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_package_has_an_init_file() -> None:
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT.joinpath(*name.split(".")[1:]) / "__init__.py").exists(), name


def test_weights_and_configurations_are_found_as_package_data() -> None:
    weights = {path.name for path in resources.files("beamsieve.models.weights").iterdir()}
    assert {"hits-resnet10.pt", "hits-resnet10.json"} <= weights
    assert "xfel_hits.yaml" in {path.name for path in resources.files("beamsieve.config").iterdir()}


def test_all_that_the_page_and_deployments_need_is_package_data() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("beamsieve.deploy", "beamsieve.stream.live"):
        folder = ROOT.joinpath(*package.split(".")[1:])
        matched = {path for pattern in patterns[package] for path in folder.glob(pattern)}
        files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
        assert files <= matched, sorted(map(str, files - matched))


def test_weights_stay_small_and_have_cards() -> None:
    weights = sorted((ROOT / "models" / "weights").glob("*.pt"))
    assert sum(path.stat().st_size for path in weights) < 40e6
    for path in weights:
        assert path.stat().st_size < 10e6
        assert json.loads(path.with_suffix(".json").read_text())["trained_by"].startswith("beamsieve train ")


def test_torch_is_pinned_and_never_pulled_plain() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()


def test_the_version_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beamsieve.stream", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"beamsieve {beamsieve.__version__}"


COMMANDS = """run check schema page marks deploy demo emulate record replay classify classify2d pick rethreshold status
retry mine cluster segment train finetune evaluate models inspect recover"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help(command: str) -> None:
    from beamsieve.stream.__main__ import app
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) > 5
