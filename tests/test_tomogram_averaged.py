"""The average of a group: which sub-volumes are in it, and how wide a globule of known size comes out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms.averaged import GroupAverage, group_average
from beamsieve.models.tomograms.book import Clusters, write_clusters
from beamsieve.models.tomograms.groups import Group, Groups
from beamsieve.models.tomograms.groups_file import write_groups
from beamsieve.stream.__main__ import app
from typer.testing import CliRunner

EDGE, VOXEL_A = 32, 14.2
Z, Y, X = np.indices((EDGE,) * 3) - EDGE // 2


def ball(radius: float, hollow: float = 0.0, stretched: float = 1.0) -> npt.NDArray[np.float32]:
    away = np.sqrt(X**2 + Y**2 + (Z / stretched) ** 2)
    inside = 1 / (1 + np.exp((away - radius) / 0.5)) - hollow / (1 + np.exp((away - radius / 2) / 0.5))
    return np.asarray(inside, np.float32)


def clusters() -> Clusters:
    average = np.stack([ball(4), ball(8), -ball(8)]).astype(np.float16)
    return Clusters(
        ids=np.array([3, 7, 9], np.int32),
        codes=np.eye(3, 32, dtype=np.float32),
        counts=np.array([90, 90, 90]),
        spread=np.zeros(3, np.float32),
        decoded=average.astype(np.float32),
        average=average,
        averaged=np.array([10, 30, 0]),
        network="0" * 64,
        voxel_a=VOXEL_A,
        next_id=10,
    )


@pytest.mark.parametrize("radius", [6.0, 8.8])
@pytest.mark.parametrize("hollow", [0.0, 0.9])
def test_a_globule_is_as_wide_as_it_is(radius: float, hollow: float) -> None:
    found = GroupAverage(ball(radius, hollow, stretched=1.3), 1, VOXEL_A)
    assert found.width_nm() == pytest.approx(0.2 * VOXEL_A * radius, rel=0.06)
    assert found.height_nm() == pytest.approx(1.3 * 0.2 * VOXEL_A * radius, rel=0.08)


def test_where_nothing_stands_there_is_no_width() -> None:
    assert math.isnan(GroupAverage(np.zeros((EDGE,) * 3, np.float32), 1, VOXEL_A).width_nm())


def test_a_cluster_counts_by_its_sub_volumes() -> None:
    found = group_average(clusters(), [3, 7])
    assert found.count == 40
    np.testing.assert_allclose(found.data, 0.25 * ball(4) + 0.75 * ball(8), atol=1e-3)
    with pytest.raises(ValueError, match="no sub-volumes of these clusters are kept"):
        group_average(clusters(), [9])


def test_the_command_writes_it_and_says_how_wide_it_is(tmp_path: Path) -> None:
    write_clusters(tmp_path / "clusters.h5", replace(clusters(), averaged=np.array([10, 0, 0])))
    write_groups(tmp_path / "groups.yaml", Groups((Group("small ones", "globule", (3,)), Group("rest", "other", (9,)))))
    done = CliRunner().invoke(app, ["cluster", "tomograms", str(tmp_path), "--average", "small ones"])
    assert done.exit_code == 0, done.output
    assert "small ones, 10 sub-volumes; at half height 10." in done.output
    with mrcfile.open(tmp_path / "averages" / "small-ones.mrc") as file:
        np.testing.assert_allclose(file.data, ball(4), atol=1e-3)
        assert file.voxel_size.x == pytest.approx(VOXEL_A)
    for wrong, said in (("ribosome", "no such group; there are: small ones, rest"), ("rest", "no sub-volumes")):
        done = CliRunner().invoke(app, ["cluster", "tomograms", str(tmp_path), "--average", wrong])
        assert done.exit_code == 2, done.output
        assert said in done.output
