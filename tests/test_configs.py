"""The configurations that ship: each loads as ``beamsieve check`` loads it, and what it says exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from beamsieve.models.bundle import quiet_torchscript, save_bundle
from beamsieve.stream.commands import run
from beamsieve.stream.flow.settings import ConfigError

FOLDER = Path(__file__).parents[1] / "config"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
# These name constants and geometries of a real instrument, which do not ship: only their settings can be checked here,
# and that nothing but these files is missing.
NAMES_FILES_OF_THE_INSTRUMENT = {
    "xfel_hits-spb-agipd.yaml": {"agipd_spb.geom"},
    "xfel_hits-jungfrau.yaml": {"pedestals.h5", "gains.h5", "mask.h5", "jungfrau4m.geom"},
    "cryoem_picks-epu.yaml": {"/data/epu/session"},
    "cryoem_picks-serialem-k3.yaml": {"/data/serialem/session", "/data/serialem/gain.mrc"},
    "cryoem_picks-leginon.yaml": {"/data/leginon/session/rawdata"},
}


class Blank(torch.nn.Module):
    """Says that there was nothing, whatever it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(x.shape[0], 5) + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of the name the configurations ask for, found before those that ship."""
    folder = tmp_path_factory.mktemp("models")
    card = {
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
    with quiet_torchscript():
        save_bundle(folder, "hits-resnet10", torch.jit.script(Blank().eval()), card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAMSIEVE_MODELS", str(folder))
        yield folder


def test_there_are_configurations_and_the_default_is_one() -> None:
    assert FOLDER / "xfel_hits.yaml" in CONFIGS
    assert {path.name for path in CONFIGS} >= set(NAMES_FILES_OF_THE_INSTRUMENT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_settings_are_valid(path: Path) -> None:
    settings, where = run.read(str(path), [])
    assert settings.beamline == path.stem.partition("-")[0]
    assert where.path.name == path.name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_wrong_word_would_be_noticed(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.endpont: unknown"):
        run.read(str(path), ["source.endpont=tcp://x:1"])


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if path.name not in NAMES_FILES_OF_THE_INSTRUMENT], ids=lambda path: path.name
)
def test_daemon_can_be_built(path: Path) -> None:
    daemon, _ = run.build(*run.read(str(path), []))
    assert daemon.model in {"hits-resnet10", "lit pixels", "particles-general", "tomograms-posed"}


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize("name", sorted(NAMES_FILES_OF_THE_INSTRUMENT))
def test_settings_part_only_because_files_of_the_instrument_do_not_ship(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run.build(*run.read(str(FOLDER / name), []))
    missing = NAMES_FILES_OF_THE_INSTRUMENT[name]
    for mistake in caught.value.mistakes:
        assert "o such f" in mistake
        assert any(file in mistake for file in missing), mistake
    said = "\n".join(caught.value.mistakes)
    assert all(file in said for file in missing), said


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_names_its_schema_and_says_what_it_is_for(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    key, _, schema = lines[0].partition("=")
    assert key == "# yaml-language-server: $schema"
    assert (path.parent / schema).is_file()
    assert all(line.startswith("#") for line in lines[1:4])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_json_schema_accepts_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = run.settings_of(path.stem.partition("-")[0]).model_json_schema()
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)


def test_shipped_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in CONFIGS:
        _, where = run.read(path.stem, [])
        assert where.base == tmp_path
