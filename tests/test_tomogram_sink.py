"""The sink for tomograms: what a session's folder holds, and how it follows marks, restarts, full disks and repeats."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import starfile
from beamsieve.stream.flow.frame import BadData, Frame, Key, Outcome, Result, RunEnd
from beamsieve.stream.formats import copick
from beamsieve.stream.formats.volume_slices import Slices
from beamsieve.stream.sinks.tomograms import labels as labels_module
from beamsieve.stream.sinks.tomograms import record
from beamsieve.stream.sinks.tomograms import sink as sink_module
from beamsieve.stream.sinks.tomograms.again import noted_settings, relabel_and_export, write_session_tables
from beamsieve.stream.sinks.tomograms.labels import planes, write_labels
from beamsieve.stream.sinks.tomograms.mined import LabelFiles, MinedTomogram, Picked
from beamsieve.stream.sinks.tomograms.pictures import draw
from beamsieve.stream.sinks.tomograms.places import Places
from beamsieve.stream.sinks.tomograms.settings import TomogramFiles
from beamsieve.stream.sinks.tomograms.sink import TomogramSink

SHAPE = (12, 20, 30)
CLASSES = ("membrane", "ribosome-like")


def grey(value: int) -> Slices:
    z, y, x = SHAPE
    xy, xz, yz = (np.full(shape, value, np.uint8) for shape in ((y, x), (z, x), (z, y)))
    return Slices(xy, xz, yz, 1, (x // 2, y // 2, z // 2))


def mined(name: str = "TS_01.mrc", n: int = 6, **more: Any) -> MinedTomogram:
    rng = np.random.default_rng(len(name))
    xyz = (rng.random((n, 3)) * np.array(SHAPE[::-1])).astype(np.float32)
    picked = Picked.of(
        xyz,
        np.ones(n, np.float32),
        np.zeros((n, 32), np.float32),
        error=np.full(n, 0.5, np.float32),
        label=np.arange(n) % 3,
        cluster=np.arange(n) % 3,
    )
    made = MinedTomogram(
        name, Path("/data") / name, SHAPE, 14.2, 14.2, picked, "general", "ab" * 32, 3.0, classes=CLASSES, edge=8
    )
    return replace(made, slices=grey(120), **more)


@dataclass(frozen=True)
class Planes:
    z0: int
    labels: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float16]


def truth() -> npt.NDArray[np.uint8]:
    data = np.zeros(SHAPE, np.uint8)
    data[:, 5:10] = 1
    data[4:9, 12:18, 12:20] = 2
    return data


def slabs(step: int = 5) -> Iterator[Planes]:
    for z0 in range(0, SHAPE[0], step):
        part = truth()[z0 : z0 + step]
        yield Planes(z0, part, np.stack([part == at for at in range(3)]).astype(np.float16))


def result(found: MinedTomogram) -> Result:
    frame = Frame(Key("s", 1), np.zeros((4, 4), np.float32), 0.0, 0.0)
    return Result(frame, Outcome.ACCEPTED, 1.0, "miner", 1.0, {"tomogram": found})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(directory: Path, **more: Any) -> tuple[TomogramSink, Clock]:
    clock = Clock()
    options = {"formats": ("star", "eman", "copick", "csv"), "pictures": False, **more}
    made = TomogramSink(TomogramFiles(directory=directory, **options), clock=clock, free=lambda _: 10**12)
    made.open()
    return made, clock


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".lock", "settings.json"}
    }


def test_a_session_holds_records_labels_exports_pictures_and_tables(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, pictures=True)
    assert sink.write([result(mined("grid/TS_01.mrc", segmentation=slabs)), result(mined("TS_02_rec.mrc", 0))]) == []
    sink.end(RunEnd("s"))
    picks = "copick/ExperimentRuns/TS-01/Picks/beamsieve_0_"
    assert files_below(tmp_path) == {
        "session/grid/TS_01.mrc.h5",
        "session/TS_02_rec.mrc.h5",
        "labels/grid/TS_01_labels.mrc",
        "labels/grid/TS_01_membrane.mrc",
        "labels/grid/TS_01_ribosome-like.mrc",
        "eman/grid/TS_01_info.json",
        "eman/TS_02_rec_info.json",
        "csv/grid/TS_01.csv",
        "csv/TS_02_rec.csv",
        "pictures/grid/TS_01.png",
        "pictures/TS_02_rec.png",
        *(f"{picks}{name}.json" for name in ("membrane", "ribosome-like", "unmarked")),
        "copick/config.json",
        "star/particles.star",
        "star/particles_membrane.star",
        "star/particles_ribosome-like.star",
        "tomograms.csv",
    }
    table = starfile.read(tmp_path / "star/particles.star")
    assert set(table.rlnTomoName) == {"TS_01"}
    membrane = starfile.read(tmp_path / "star/particles_membrane.star")
    assert membrane.rlnTomoParticleName.tolist() == ["TS_01/2", "TS_01/5"]
    assert membrane.rlnClassNumber.tolist() == [1, 1]
    lines = (tmp_path / "tomograms.csv").read_text().splitlines()
    assert lines[0].startswith("name,sub_volumes,voxel_a,nx,ny,nz,mode,threshold,error,seconds")
    assert lines[2].split(",")[:6] == ["grid/TS_01.mrc", "6", "14.2", "30", "20", "12"]
    assert f"{(truth() == 1).mean():.6g}" in lines[2]
    assert sink.healthy() is None


def test_label_volumes_open_elsewhere_and_are_what_was_said(tmp_path: Path) -> None:
    found = mined(flip="z", origin_a=(-10.0, 20.5, 30.0))
    files = write_labels(found, slabs(), Places(tmp_path), "TS_01")
    assert mrcfile.validate(files.labels)
    with mrcfile.open(files.labels) as volume:
        assert volume.header.origin.tolist() == (-10.0, 20.5, 30.0), "it lies over the tomogram in ChimeraX"
        assert volume.data.dtype == np.int8
        assert (volume.data == truth()).all()
        assert float(volume.voxel_size.x) == pytest.approx(14.2)
        said = " ".join(str(line) for line in volume.get_labels())
        assert "0 background, 1 membrane, 2 ribosome-like" in said
        assert "mirrored along z" in said
    assert mrcfile.validate(files.probabilities["membrane"])
    with mrcfile.open(files.probabilities["ribosome-like"]) as volume:
        assert volume.data.dtype == np.float16
        assert (volume.data == (truth() == 2)).all()
    assert files.fractions == pytest.approx({name: (truth() == at).mean() for at, name in enumerate(CLASSES, 1)})
    xy, xz, yz = planes(files, (15, 10, 6), 2)
    assert (xy == truth()[6, 1::2, 1::2]).all()
    assert (xz == truth()[1::2, 10, 1::2]).all()
    assert (yz == truth()[1::2, 1::2, 15]).all()


@pytest.mark.parametrize("what", ["gap", "missing", "unknown label", "error"])
def test_slabs_that_do_not_fit_leave_nothing(tmp_path: Path, what: str) -> None:
    def spoilt() -> Iterator[Planes]:
        for at, slab in enumerate(slabs()):
            if at == 1 and what == "gap":
                continue
            if at == 2 and what == "missing":
                return
            if at == 1 and what == "error":
                raise BadData("truncated", "the tomogram is cut")
            yield replace(slab, labels=slab.labels + 1) if what == "unknown label" else slab

    expected = BadData if what == "error" else ValueError
    with pytest.raises(expected):
        write_labels(mined(), spoilt(), Places(tmp_path), "TS_01")
    assert files_below(tmp_path) == set()


def test_a_tomogram_that_is_cut_while_it_is_segmented_fails_alone(tmp_path: Path) -> None:
    def cut() -> Iterator[Planes]:
        raise BadData("truncated", "TS_01.mrc: ends early")
        yield

    sink, _ = opened(tmp_path)
    failures = sink.write([result(mined(segmentation=cut)), result(mined("TS_02.mrc"))])
    assert [failure.reason for failure in failures] == ["truncated"]
    assert record.read(tmp_path / "session/TS_02.mrc.h5").name == "TS_02.mrc"
    assert not (tmp_path / "session/TS_01.mrc.h5").exists()


def test_a_repeat_overwrites_and_a_changed_file_keeps_the_old_record(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    sink.write([result(mined(segmentation=slabs))])
    sink.end(RunEnd("s"))
    before = files_below(tmp_path)
    sink.write([result(mined())])
    sink.end(RunEnd("s"))
    assert files_below(tmp_path) == before
    kept = record.read(tmp_path / "session/TS_01.mrc.h5").segmentation
    assert isinstance(kept, LabelFiles)  # the same file, the same classes: its labels are still its labels
    sink.write([result(mined(n=9, revision=1))])
    assert files_below(tmp_path) - before == {"session/TS_01.mrc.h5.r0"}
    assert before - files_below(tmp_path) == {name for name in before if name.startswith("labels/")}
    assert len(record.read(tmp_path / "session/TS_01.mrc.h5").picked) == 9
    assert len(record.read(tmp_path / "session/TS_01.mrc.h5.r0").picked) == 6


def test_a_damaged_record_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "session/TS_01.mrc.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"noise")
    sink, _ = opened(tmp_path)
    assert sink.write([result(mined())]) == []
    assert path.with_name("TS_01.mrc.h5.damaged").read_bytes() == b"noise"
    assert len(record.read(path).picked) == 6


def test_two_files_of_one_stem_do_not_share_files_also_after_a_restart(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    sink.write([result(mined("TS_01.mrc")), result(mined("TS_01.rec"))])
    assert {"eman/TS_01_info.json", "eman/TS_01.rec_info.json"} <= files_below(tmp_path)
    sink.close()
    again, _ = opened(tmp_path)
    assert (again.stem("TS_01.rec"), again.stem("TS_01.mrc")) == ("TS_01.rec", "TS_01")
    names = starfile.read(tmp_path / "star/particles.star").rlnTomoParticleName
    assert len(set(names)) == 12


def test_tomograms_of_one_series_name_are_no_one_tomogram_elsewhere_also_after_a_restart(tmp_path: Path) -> None:
    names = ("a/TS_01.mrc", "TS-01_rec.mrc", "b/TS_01.mrc", "b/TS_01.rec")
    sink, _ = opened(tmp_path)
    sink.write([result(mined(name)) for name in names[:3]])
    sink.close()
    again, _ = opened(tmp_path)
    again.write([result(mined(names[3])), result(mined(names[1])), result(mined(names[0]))])
    again.close()
    table = starfile.read(tmp_path / "star/particles.star")
    assert Counter(table.rlnTomoName) == dict.fromkeys(("TS_01", "TS-01_rec", "b-TS_01", "b-TS_01.rec"), 6)
    runs = {json.loads(path.read_text())["beamsieve"]["tomogram"] for path in (tmp_path / "copick").rglob("*_0_*.json")}
    assert runs == set(names)


def test_what_is_marked_later_is_followed_by_exports_and_tables(tmp_path: Path) -> None:
    sink, clock = opened(tmp_path, tables_every_s=10)
    sink.write([result(mined())])
    sink.flush()
    path = tmp_path / "session/TS_01.mrc.h5"
    record.relabel(path, np.arange(6), np.full(6, 1), classes=["carbon edge"], clusters_version=2)
    os.utime(path, ns=(later := path.stat().st_mtime_ns + 10**9, later))
    sink.flush()
    assert (tmp_path / "star/particles_membrane.star").exists()  # it is not time yet
    clock.now += 11
    sink.flush()
    assert sorted(file.name for file in (tmp_path / "star").iterdir()) == [
        "particles.star",
        "particles_carbon-edge.star",
    ]
    folder = (tmp_path / "copick" / copick.place("TS_01", "x")).parent
    assert [file.name for file in folder.iterdir()] == ["beamsieve_0_carbon-edge.json"]
    eman = json.loads((tmp_path / "eman/TS_01_info.json").read_text())
    assert [entry["name"] for entry in eman["class_list"].values()] == ["carbon edge"]


def test_exports_follow_also_where_no_file_comes_or_goes(tmp_path: Path) -> None:
    sink, clock = opened(tmp_path, formats=("csv",))
    sink.write([result(mined())])
    sink.flush()
    path = tmp_path / "session/TS_01.mrc.h5"
    record.relabel(path, np.arange(6), 2 - np.arange(6) % 3, classes=CLASSES, clusters_version=2)
    clock.now += 11
    sink.flush()
    lines = (tmp_path / "csv/TS_01.csv").read_text().splitlines()
    assert [line.split(",")[-1] for line in lines[1:4]] == ["ribosome-like", "membrane", ""]


def test_a_command_marks_and_everything_follows(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path, min_free_gb=0.5)
    sink.write([result(mined())])
    sink.close()
    settings, places = noted_settings(tmp_path), Places(tmp_path)
    assert (settings.pictures, settings.min_free_gb) == (False, 0.5)
    path = places.record("TS_01.mrc")
    words: dict[str, Any] = {"classes": ["x"], "clusters_version": 3, "settings": settings, "places": places}
    relabel_and_export(path, np.full(6, 7), np.ones(6, int), **words)
    when = path.stat().st_mtime_ns
    relabel_and_export(path, np.full(6, 7), np.ones(6, int), **words)
    assert path.stat().st_mtime_ns == when  # nothing to be written
    tables = write_session_tables(settings, places)
    assert places.particles("x") in tables
    assert starfile.read(places.particles("x")).rlnClassNumber.tolist() == [1] * 6
    (tmp_path / "eman/TS_01_info.json").unlink()
    told: list[tuple[str, int, int]] = []
    write_session_tables(settings, places, lambda *words: told.append(words))
    assert told == [("write exports", 1, 1)]
    assert (tmp_path / "eman/TS_01_info.json").exists()


def test_labels_of_older_classes_keep_their_names_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = opened(tmp_path, pictures=True)
    sink.write([result(mined(segmentation=slabs))])
    shown: list[set[int]] = []

    def draws(found: MinedTomogram, label_planes: Any = None, fractions: Any = None) -> bytes:
        shown.append(set(np.unique(label_planes[0]).tolist()))
        return draw(found, label_planes, fractions)

    monkeypatch.setattr("beamsieve.stream.sinks.tomograms.exports.draw", draws)
    settings, places = noted_settings(tmp_path), Places(tmp_path)
    path = places.record("TS_01.mrc")
    words: dict[str, Any] = {"clusters_version": 4, "settings": settings, "places": places}
    relabel_and_export(path, np.arange(6), np.zeros(6, int), classes=["new", "other", "membrane"], **words)
    assert shown == [{0, 3}]  # membrane is the third class now, ribosome-like is none


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10**12]
    clock = Clock()
    sink = TomogramSink(TomogramFiles(directory=tmp_path, pictures=False), clock=clock, free=lambda _: free[0])
    sink.open()
    free[0] = 0
    clock.now += 2
    (failure,) = sink.write([result(mined())])
    assert failure.reason == "disk_full"
    assert not sink.may_write()
    assert "min_free_gb" in str(sink.healthy())
    free[0] = 10**12
    clock.now += 2
    assert sink.write([result(mined())]) == []
    assert sink.healthy() is None

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "TS_02")

    with monkeypatch.context() as patch:
        patch.setattr(sink_module, "write_whole", full)
        (failure,) = sink.write([result(mined("TS_02.mrc"))])
        assert failure.reason == "disk_full"
        patch.setattr(labels_module, "MrcWriter", full)
        clock.now += 60
        (failure,) = sink.write([result(mined("TS_03.mrc", segmentation=slabs))])
        assert failure.reason == "disk_full"
    clock.now += 60
    assert sink.write([result(mined("TS_02.mrc"))]) == []
    sink.close()
    assert {path.name for path in (tmp_path / "session").iterdir()} == {"TS_01.mrc.h5", "TS_02.mrc.h5"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_name_that_no_file_can_have_fails_alone(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    failures = sink.write([result(mined("n" * 300 + ".mrc")), result(mined())])
    assert [failure.reason for failure in failures] == ["write"]
    assert sink.healthy() is None


def test_half_written_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    sink, _ = opened(tmp_path)
    sink.write([result(mined(segmentation=slabs))])
    (tmp_path / "labels" / f".a_labels.mrc.{os.uname().nodename}-999999999.tmp").write_bytes(b"half")
    opened(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"set files\.directory"):
        TomogramSink(TomogramFiles(directory=tmp_path / "file" / "session")).open()


def pixels(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(imagecodecs.png_decode(png))[..., :3]


def is_there(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int], spread: int = 12) -> int:
    return int((np.abs(picture.astype(int) - colour).max(-1) <= spread).sum())


def test_the_picture_shows_labels_and_rings_in_the_colours_of_their_classes(tmp_path: Path) -> None:
    files = write_labels(mined(), slabs(), Places(tmp_path), "TS_01", probabilities=False)
    found = mined(colours=("#00ff00", "#ff0000"))
    # One ring of each class on the slice across z, and one far from it.
    xyz = np.array([[7.5, 3, 6], [22, 14, 6], [4, 16, 11.9]], np.float32)
    picked = Picked.of(xyz, np.ones(3, np.float32), np.zeros((3, 32), np.float32), label=np.array([1, 2, 0]))
    assert files.probabilities == {}
    plain = pixels(draw(replace(found, picked=picked)))
    marked = pixels(draw(replace(found, picked=picked), planes(files, (15, 10, 6), 1), dict(files.fractions)))
    zoom = 720 // (30 + 12)
    area = 30 * zoom * 5 * zoom
    blend = (66, 180, 66)  # 55 % of grey 120, 45 % of green
    assert is_there(plain, blend) < 0.1 * area
    assert is_there(marked, blend) > 0.8 * area
    assert is_there(plain, (0, 255, 0), 40) > 3 * zoom
    assert is_there(plain, (255, 0, 0), 40) > 3 * zoom
    # Rows and columns meet: the ring of the first class is where its sub-volume is.
    left, top = 14 + 7.5 * zoom, 46 + 3 * zoom
    ring = plain[int(top - 3 * zoom) : int(top + 3.5 * zoom), int(left - 3 * zoom) : int(left + 3.5 * zoom)]
    assert is_there(ring, (0, 255, 0), 60) > 2 * zoom
    assert draw(found) == draw(found)
    with pytest.raises(ValueError, match="no slices"):
        draw(replace(found, slices=None))


def test_any_name_can_be_drawn() -> None:
    name = "$\\frac{1}{0}$\n" + "é" * 300 + ".mrc"
    assert pixels(draw(mined(name, classes=("a$b$", "_^x")))).shape[1] > 700
