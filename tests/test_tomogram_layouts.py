"""Tomograms in a watched folder: which names are taken, and when a volume counts as complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from beamsieve.stream.flow.frame import Raw, RunStart
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.sources.folder.layouts import chooser, companions, parse_name
from beamsieve.stream.sources.folder.settings import EXCLUDE, FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource

SHAPE = (6, 8, 10)


@pytest.mark.parametrize(
    ("layout", "taken", "left"),
    [
        (
            "flat",
            ["a.mrc", "x/TS_01.rec", "b.MAP", "c.hdf", "TS_01_full_rec.mrc", "TS_01_Vol.mrc", "TS_01_10.00Apx.mrc"],
            [
                "TS_01.st",
                "TS_01.ali",
                "TS_01_ali.mrc",
                "TS_01_preali.mrc",
                "TS_01_EVN_Vol.mrc",
                "TS_01_ODD.mrc",
                "even/TS_01_10.00Apx.mrc",
                "reconstruction/odd/TS_01_10.00Apx.mrc",
                "reconstruction/deconv/TS_01_10.00Apx.mrc",
                "TS_01_half1_rec.mrc",
                "TS_01_labels.mrc",
                "TS_01_2ND_Vol.mrc",
                "a.tif",
                "a.mrcs",
                "a.mrc.mdoc",
            ],
        ),
        ("serialem", ["TS_01.rec", "d/TS_01_full_rec.mrc", "TS_01_rec.mrc"], ["TS_01.mrc", "TS_01_ali.mrc", "x.mrc"]),
        ("aretomo", ["TS_01_Vol.mrc", "d/TS_01_rec.mrc"], ["TS_01.mrc", "TS_01_ODD_Vol.mrc", "TS_01_CTF.mrc"]),
        (
            "warp",
            ["reconstruction/TS_01_10.00Apx.mrc", "warp/reconstruction/TS_1_7.84Apx.mrc", "TS_01_10.00Apx.mrc"],
            ["average/a_000.mrc", "reconstruction/even/TS_01_10.00Apx.mrc", "tiltstack/TS_01/TS_01.st", "a.mrc"],
        ),
    ],
)
def test_what_the_programs_call_tomograms(layout: str, taken: list[str], left: list[str]) -> None:
    wanted, _ = chooser(layout, "tomograms", (), EXCLUDE)
    assert [name for name in taken + left if wanted(name)] == taken


def test_patterns_take_what_the_default_leaves() -> None:
    wanted, _ = chooser("warp", "tomograms", ("**/deconv/*.mrc",), EXCLUDE)
    assert wanted("reconstruction/deconv/TS_01_10.00Apx.mrc")
    assert not wanted("reconstruction/TS_01_10.00Apx.mrc")


def test_a_tomogram_says_its_series_and_waits_for_no_mdoc() -> None:
    assert parse_name("serialem", "a/TS_01_full_rec.mrc", "tomograms") == {"series": "TS_01"}
    assert companions("serialem", "TS_01_rec.mrc", "tomograms") == {}
    assert companions("serialem", "TS_01_rec.mrc") != {}


@pytest.mark.parametrize(
    ("layout", "take", "words"),
    [("epu", "tomograms", "epu names no tomograms"), ("warp", "micrographs", "warp names tomograms only")],
)
def test_a_layout_that_does_not_go_with_what_is_taken(tmp_path: Path, layout: str, take: str, words: str) -> None:
    chosen = FolderSettings.model_validate({"directory": tmp_path, "layout": layout, "take": take})
    assert [text for _, text in chosen.mistakes() if words in text]
    for good in ("flat", "serialem", "aretomo", "warp"):
        assert not FolderSettings.model_validate(
            {"directory": tmp_path, "layout": good, "take": "tomograms"}
        ).mistakes()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A folder of tomograms, looked into whenever the clock is moved."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.clock = tmp_path / "tomograms", Clock()
        self.folder.mkdir()
        settings = FolderSettings(
            directory=self.folder, take="tomograms", poll_s=1, settle_s=10, doubt_s=120, incomplete_s=900
        )
        self.source = FolderSource(
            settings,
            NoFacts(),
            journal=tmp_path / "journal.sqlite",
            bell=Silent(),
            clock=self.clock,
            wall=lambda: 1e9 + self.clock(),
        )
        self.source.open()
        assert isinstance((self.source.read(0) or ())[0], RunStart)

    def after(self, seconds: float) -> list[tuple[str, tuple[str, ...]]]:
        """Names and flags of what is taken when it is looked at so much later; failures by their reason."""
        self.clock.now += seconds
        found = self.source.read(0) or ()
        return [
            (item.info["name"], item.info["flags"]) if isinstance(item, Raw) else (getattr(item, "reason", "?"), ())
            for item in found
        ]


class Silent:
    """A bell that never rings and never waits."""

    def ring(self) -> None:
        pass

    def wait(self, timeout: float) -> bool:
        return timeout < 0

    def start(self, root: Path, recursive: bool, every_s: float) -> bool:
        return not (root and recursive and every_s)

    def stop(self) -> None:
        pass


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    made = Watch(tmp_path)
    yield made
    made.source.close()
    made.source.finish()


def volume(path: Path, empty_end: bool = False, shape: tuple[int, int, int] = SHAPE) -> bytes:
    data = np.random.default_rng(0).normal(size=shape).astype("f4")
    if empty_end:
        data[shape[0] // 2 :] = 0
    with MrcWriter(path, shape, 2, 14.2) as out:
        out.write(data)
    return path.read_bytes()


def test_a_tomogram_is_taken_when_all_its_header_promises_is_there(watch: Watch, tmp_path: Path) -> None:
    content = volume(tmp_path / "whole.mrc")
    path = watch.folder / "TS_01.mrc"
    path.write_bytes(content[:1024])
    assert watch.after(0) == []
    assert watch.after(200) == []  # long settled, and cut
    path.write_bytes(content[:-4])
    assert watch.after(1) == []
    assert watch.after(200) == []
    path.write_bytes(content)
    assert watch.after(1) == []
    assert watch.after(11) == [("TS_01.mrc", ())]


def test_planes_of_zeros_at_the_end_are_doubted_and_not_held_back_for_ever(watch: Watch) -> None:
    # The last 64 KiB are looked at.
    volume(watch.folder / "TS_01_Vol.mrc", empty_end=True, shape=(40, 64, 64))
    assert watch.after(0) == []
    assert watch.after(60) == []
    assert watch.after(70) == [("TS_01_Vol.mrc", ("zero_tail",))]


def test_tomograms_of_a_session_may_be_of_different_thickness(watch: Watch) -> None:
    for at in range(8):
        volume(watch.folder / f"TS_{at}.mrc", shape=(60, 4, 4))
    assert watch.after(0) == []
    assert len(watch.after(11)) == 8
    volume(watch.folder / "TS_thin.mrc", shape=(20, 4, 4))
    assert watch.after(1) == []
    assert watch.after(11) == [("TS_thin.mrc", ())]


def test_hdf5_is_taken_when_it_opens(watch: Watch) -> None:
    path = watch.folder / "TS_01.hdf"
    with h5py.File(path, "w") as file:
        file["MDF/images/0/image"] = np.random.default_rng(0).normal(size=(20, 30, 40)).astype("f4")
    size = path.stat().st_size
    content = path.read_bytes()
    os.truncate(path, size // 2)
    assert watch.after(0) == []
    assert watch.after(100) == []
    assert watch.after(1000) == [("hdf", ())]  # set aside with its reason
    path.write_bytes(content)
    assert watch.after(1) == []
    assert watch.after(11) == [("TS_01.hdf", ())]


def test_what_opens_and_is_no_volume_goes_on_at_once_to_be_refused(watch: Watch) -> None:
    with h5py.File(watch.folder / "notes.hdf", "w") as file:
        file["text"] = np.arange(10)
    assert watch.after(0) == []
    assert watch.after(11) == [("notes.hdf", ())]
