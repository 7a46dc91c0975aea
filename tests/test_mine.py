"""``beamsieve mine``: tomograms that are named, mined and clustered; gone on with; bad ones named, mistakes told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.models.tomograms.book import read_clusters
from beamsieve.stream.__main__ import app
from beamsieve.stream.beamlines.mining_offline import Done, MineFiles, mine_files
from beamsieve.stream.commands.mine import MiningOptions
from beamsieve.stream.commands.mined_files import find
from beamsieve.stream.commands.pick import checked
from beamsieve.stream.flow.settings import ConfigError
from beamsieve.stream.sinks.tomograms.record import read
from beamsieve.tests.mining_sessions import network, settings, write
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("nets"))


def mine(folder: Path, bundle: Path, *named: Path, **changes: Any) -> Done:
    given = settings(folder, bundle, **changes)
    blocks = {name: given[name] for name in ("model", "segment", "files", *changes)}
    blocks["clusters"] = {"number": 4, "first_at": 10, "retrain": False}
    chosen, where = checked(blocks, [], MineFiles, "mine", MiningOptions)
    return mine_files(chosen, find(named, folder / "out"), where, lambda *_: None, stop=threading.Event())


def words(folder: Path, bundle: Path, *more: str) -> list[str]:
    line = ["mine", str(folder / "in"), "--out", str(folder / "out"), "--bundle", str(bundle), "--threads", "1"]
    return [*line, "--k", "4", "--threshold", "2", "--set", "model.sigma=3", "--no-pictures", "--format", "star", *more]


def test_the_command_mines_clusters_and_says_what_it_found_and_goes_on(tmp_path: Path, bundle: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "in" / f"t{number}.mrc", number)
    (tmp_path / "in" / "t2_half1.mrc").write_bytes(b"a half volume")
    (tmp_path / "in" / "cut.mrc").write_bytes((tmp_path / "in" / "t1.mrc").read_bytes()[:-3000])
    result = CliRunner().invoke(app, words(tmp_path, bundle, "--json", str(tmp_path / "x.json")))
    assert result.exit_code == 1, result.output
    found = json.loads((tmp_path / "x.json").read_text())
    assert [row["tomogram"] for row in found["tomograms"]] == ["t1.mrc", "t2.mrc"]
    assert [failure["reason"] for failure in found["failures"]] == ["truncated"]
    assert "cut.mrc" in found["failures"][0]["detail"]
    assert "half1" not in json.dumps(found)
    assert found["subvolumes"] == sum(row["subvolumes"] for row in found["tomograms"]) > 40
    assert sum(one["count"] for one in found["clusters"]) == found["subvolumes"]
    assert "2 tomograms here, 1 failed" in result.output
    assert Path(found["sheet"]).read_bytes()[1:4] == b"PNG"
    clusters = read_clusters(tmp_path / "out" / "clusters.h5")
    assert clusters is not None
    for name in ("t1", "t2"):
        one = read(tmp_path / "out" / "session" / f"{name}.mrc.h5")
        np.testing.assert_array_equal(one.picked.cluster, clusters.assign(one.picked.codes)[0])
    (tmp_path / "in" / "cut.mrc").unlink()
    write(tmp_path / "in" / "t3.mrc", 3)
    again = CliRunner().invoke(app, words(tmp_path, bundle, "--json", str(tmp_path / "x.json")))
    assert again.exit_code == 0, again.output
    found = json.loads((tmp_path / "x.json").read_text())
    assert [row["tomogram"] for row in found["tomograms"]] == ["t3.mrc"]
    assert found["there"] == ["t1.mrc", "t2.mrc"]
    assert "t1.mrc: was mined before with the same settings" in again.output
    assert {one["id"] for one in found["clusters"]} & set(clusters.ids.tolist()), "numbers stay"


def test_other_settings_mine_again_and_names_stay_apart(tmp_path: Path, bundle: Path) -> None:
    write(tmp_path / "a" / "t.mrc", 1)
    write(tmp_path / "b" / "t.mrc", 2)
    first = mine(tmp_path, bundle, tmp_path / "a" / "t.mrc")
    second = mine(tmp_path, bundle, tmp_path / "b" / "t.mrc")
    assert [row["tomogram"] for row in (*first.table, *second.table)] == ["t.mrc", "b/t.mrc"]
    both = mine(tmp_path, bundle, tmp_path / "a", tmp_path / "b")
    assert (both.table, sorted(both.there)) == ([], ["b/t.mrc", "t.mrc"])
    third = mine(tmp_path, bundle, tmp_path / "a", model={"threshold": 4.0})
    assert [row["tomogram"] for row in third.table] == ["t.mrc"]
    assert third.table[0]["subvolumes"] <= first.table[0]["subvolumes"]
    assert len(list((tmp_path / "out" / "session").rglob("*.h5"))) == 2


def test_told_to_stop_it_gives_up_what_is_in_work_and_goes_on_later(tmp_path: Path, bundle: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "in" / f"t{number}.mrc", number)
    stop = threading.Event()
    blocks = {name: settings(tmp_path, bundle)[name] for name in ("model", "files")}
    chosen, where = checked(blocks, [], MineFiles, "mine", MiningOptions)
    files = find([tmp_path / "in"], tmp_path / "out")

    def told(what: str, *_: int) -> None:
        if what.startswith("mine:"):
            stop.set()

    done = mine_files(chosen, files, where, told, stop=stop)
    assert done.stopped
    assert done.summary["clusters"] == []
    finished = len(done.table)
    rest = mine_files(chosen, files, where, lambda *_: None, stop=threading.Event())
    assert not rest.stopped
    assert (len(rest.table), len(rest.there)) == (2 - finished, finished)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: [*line, "--k", "1"], "--k: input should be greater than or equal to 2"),
        (lambda line: [word.replace("tiny.pt", "none.pt") for word in line], "--bundle: "),
        (lambda line: [*line, "--set", "model.sigmma=3"], "did you mean sigma?"),
        (lambda line: [*line, "--format", "starr"], "--format: "),
        (lambda line: ["mine", "/nowhere.mrc", *line[2:]], "/nowhere.mrc: no such file or folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path, bundle: Path, change: Callable[[list[str]], list[str]], said: str
) -> None:
    write(tmp_path / "in" / "t1.mrc", 1)
    result = CliRunner().invoke(app, change(words(tmp_path, bundle)))
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_groups_that_cannot_be_read_are_a_mistake_and_change_nothing(tmp_path: Path, bundle: Path) -> None:
    write(tmp_path / "in" / "t1.mrc", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "groups.yaml").write_text("groups:\n  - {nmae: a, clusters: [1]}\n")
    result = CliRunner().invoke(app, words(tmp_path, bundle))
    assert result.exit_code == 2, result.output
    assert "groups.yaml:2: groups.0.nmae: unknown; did you mean name?" in result.output
    assert not (tmp_path / "out" / "session").exists()


def test_a_name_that_is_no_text_and_voxels_that_are_no_numbers_are_said(
    tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "in" / "t1.mrc", 1)
    with (tmp_path / "in" / "t1.mrc").open("r+b") as stream:
        stream.seek(1024 + 4 * 1000)
        stream.write(np.full(40, np.nan, "<f4").tobytes())
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.mrc")).write_bytes((tmp_path / "in/t1.mrc").read_bytes())
    done = mine(tmp_path, bundle, tmp_path / "in")
    assert [failure["reason"] for failure in done.failures] == ["bad_name"]
    assert "caf\\udce9.mrc" in done.failures[0]["detail"]
    assert [(row["tomogram"], row["flags"]) for row in done.table] == [("t1.mrc", ["not_finite"])]
    assert "t1.mrc: 40 of 442368 voxels are NaN or infinite" in caplog.text


def test_results_are_never_taken_for_tomograms(tmp_path: Path) -> None:
    write(tmp_path / "t1.mrc", 1)
    write(tmp_path / "out" / "labels" / "t0.mrc", 2)
    assert find([tmp_path], tmp_path / "out") == [tmp_path / "t1.mrc"]
    with pytest.raises(ConfigError, match="no tomograms are taken from --out"):
        find([tmp_path], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no tomograms in it"):
        find([tmp_path / "empty"], tmp_path / "out")
