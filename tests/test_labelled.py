"""Which file of coordinates belongs to a micrograph: by its name, as the programs that mark particles write it."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from beamsieve.stream.commands.labelled import Reading, read_labelled
from beamsieve.stream.flow.settings import ConfigError

STAR = "\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n 10.0 20.0\n"


@pytest.fixture
def micrographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "m1.mrc", tmp_path / "m10.mrc"]
    for path in paths:
        with mrcfile.new(path) as file:
            file.set_data(np.zeros((60, 50), np.float32))
            file.voxel_size = 2.0
    return paths


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".star", STAR),
        ("_autopick.star", STAR),
        ("_manualpick.star", STAR),
        ("_info.json", json.dumps({"boxes": [[10, 20, "manual"]]})),
        (".box", "5\t15\t10\t10\n"),
        (".csv", "x,y\n10,20\n"),
    ],
)
def test_coordinates_are_found_beside_the_micrograph(micrographs: list[Path], ending: str, text: str) -> None:
    for path in micrographs:
        path.with_name(path.stem + ending).write_text(text)
    for found in read_labelled(micrographs, Reading()):
        assert (found.x.tolist(), found.y.tolist(), found.pixel_a) == ([10.0], [20.0], 2.0)


def test_coordinates_of_another_micrograph_are_not_taken(micrographs: list[Path]) -> None:
    (micrographs[0].with_name("m1_autopick.star")).write_text(STAR)
    with pytest.raises(ConfigError, match=r"m10\.mrc: no coordinates for it"):
        read_labelled(micrographs, Reading())


def test_what_is_named_like_the_micrograph_comes_first(micrographs: list[Path]) -> None:
    micrographs[0].with_name("m1_autopick.star").write_text(STAR)
    micrographs[0].with_name("m1.csv").write_text("x,y,verdict\n1,2,right\n3,4,wrong\n")
    (found,) = read_labelled(micrographs[:1], Reading())
    assert (found.x.tolist(), found.wrong_x.tolist()) == ([1.0], [3.0])
