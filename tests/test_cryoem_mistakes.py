"""What ``beamsieve check`` says to configurations of ``cryoem_picks`` that name what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from beamsieve.stream.__main__ import app
from typer.testing import CliRunner

CONFIG = """beamline: cryoem_picks
source:
  directory: in
  take: {take}
decode:
  gain: {gain}
model:
  bundle: nothing-of-that-name
files:
  directory: {out}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def said(place: Path, out: str = "picks", gain: str = "null", take: str = "movies") -> list[str]:
    path = place / "my.yaml"
    path.write_text(CONFIG.format(out=out, gain=gain, take=take))
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    return [line.removeprefix(f"{path}:") for line in result.output.splitlines()]


def test_the_watched_folder_is_not_written_to(place: Path) -> None:
    assert "10: files.directory: is the watched folder; name another, or one below it" in said(place, out="in/../in")
    assert not any("watched folder" in line for line in said(place, out="in/picks"))


def test_a_gain_reference_that_is_not_there_is_blamed_on_its_line(place: Path) -> None:
    (mistake,) = [line for line in said(place, gain="gain.mrc") if "gain" in line]
    assert mistake == f"6: decode.gain: {place / 'gain.mrc'}: no such file; name the gain reference, or leave it out"


def test_all_mistakes_are_told_at_once(place: Path) -> None:
    told = said(place, out="in", gain="gain.mrc")
    assert sorted(line.partition(":")[0] for line in told) == ["10", "6", "8"]


def test_tomograms_are_for_another_daemon(place: Path) -> None:
    told = said(place, take="tomograms")
    assert "4: source.take: tomograms are for cryoet_mining; take micrographs or movies" in told
