"""The HDF5 sink: what was kept is in closed files, once, in order, as it came; disks fill and files fail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.stream.flow.frame import Encoded, Failure, Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.sinks.check_cxi import check
from beamsieve.stream.sinks.hdf5 import Hdf5Settings, Hdf5Sink, safe_name
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

DATA = "entry_1/instrument_1/detector_1/data"
MASK = "entry_1/instrument_1/detector_1/mask"
INFO: dict[str, Any] = {
    "energy_J": 1.1e-15,
    "distance_m": 0.58,
    "x_pixel_size_m": 75e-6,
    "y_pixel_size_m": 75e-6,
    "beam_center_x_px": 4.0,
    "beam_center_y_px": 3.0,
    "detector": "EIGER2",
    "title": "night shift",
}


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Told:
    events: list[tuple[str, int]] = field(default_factory=list)

    def event(self, kind: str, n: int = 1) -> None:
        self.events.append((kind, n))


def image(number: int, shape: tuple[int, ...] = (6, 8), dtype: str = "<u2") -> npt.NDArray[Any]:
    return (np.arange(np.prod(shape)).reshape(shape) % 50 + number).astype(dtype)


def result(
    number: int,
    run: str = "r1",
    *,
    weight: float = 1.0,
    outcome: Outcome = Outcome.ACCEPTED,
    data: npt.NDArray[Any] | None = None,
    chunk: Encoded | None = None,
    mask: npt.NDArray[np.uint32] | None = None,
    pulse: int = -1,
    **found: Any,
) -> Result:
    pixels = image(number) if data is None else data
    frame = Frame(Key(run, number, pulse), pixels, 0.0, 1.7e9 + number, mask=mask, chunk=chunk)
    found = found or {
        "probabilities": np.array([0.1, 0.7, 0.1, 0.05, 0.05], np.float32),
        "label": 1,
        "lit": 40 + number,
        "photons": 1e4,
        "model": "a" * 64,
        "threshold": 0.5,
    }
    return Result(frame, outcome, 0.7, weight=weight, found=found)


def sink(folder: Path, facts: Told | None = None, *, clock: Clock | None = None, **words: Any) -> Hdf5Sink:
    chosen = {"min_free_gb": 0.0} | words
    made = Hdf5Sink(Hdf5Settings(directory=folder, **chosen), facts, clock=clock or Clock(), config="beamline: x\n")
    made.open()
    return made


def numbers(paths: Sequence[Path]) -> list[int]:
    found: list[int] = []
    for path in paths:
        with h5py.File(path) as file:
            found += file["entry_1/result_1/number"][:].tolist()
    return found


def sound(path: Path) -> None:
    broken = [finding for finding in check(path) if not finding.ok]
    assert not broken, broken


@pytest.fixture(scope="module")
def wire() -> Iterator[list[Encoded]]:
    """Frames as a detector would send them: chunks that HDF5's own filter compressed."""
    rng = np.random.default_rng(3)
    frames = rng.poisson(0.4, (4, 128, 128)).astype("<u2")
    with h5py.File("wire", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", data=frames, chunks=(1, 128, 128), **hdf5plugin.Bitshuffle(cname="lz4"))
        yield [
            Encoded(memoryview(data.id.read_direct_chunk((at, 0, 0))[1]), (128, 128), frames.dtype, "bslz4")
            for at in range(4)
        ]


def decoded(chunk: Encoded) -> npt.NDArray[Any]:
    from dectris.compression import decompress

    return np.frombuffer(decompress(bytes(chunk.buffer), "bslz4", elem_size=2), chunk.dtype).reshape(chunk.shape)


# What is kept


def test_a_run_becomes_a_file_that_says_it_all(tmp_path: Path) -> None:
    out = sink(tmp_path, instrument="SPB", sample="MS2")
    out.start(RunStart("r1", INFO))
    rejected = result(1, weight=0.0, outcome=Outcome.REJECTED)
    missed = result(2, weight=50.0, outcome=Outcome.REJECTED, lit=3, threshold=200.0)
    assert out.write([result(0), rejected, missed, result(3, pulse=4)]) == []
    out.end(RunEnd("r1", "end"))
    assert out.files == [tmp_path / "r1_0001.cxi"]
    assert list(tmp_path.iterdir()) == out.files
    sound(out.files[0])
    with h5py.File(out.files[0]) as file:
        assert file["cxi_version"][()] == 160
        entry, kept = file["entry_1"], file["entry_1/result_1"]
        assert entry["experiment_identifier"][:].tolist() == [b"r1:0", b"r1:2", b"3:4"]
        assert kept["accepted_reason"][:].tolist() == [b"hit", b"random_miss", b"hit"]
        assert kept["sampling_weight"][:].tolist() == [1.0, 50.0, 1.0]
        assert kept["outcome"][:].tolist() == [b"accepted", b"rejected", b"accepted"]
        assert kept["lit_pixels"][:].tolist() == [40, 3, 43]
        assert kept["label"][:].tolist() == [1, -1, 1]
        assert kept["model_id"][:].tolist() == [b"a" * 64, b"", b"a" * 64]
        assert np.isnan(kept["class_probabilities"][1]).all()
        assert kept["class_probabilities"][2, 1] == np.float32(0.7)
        assert kept["timestamp"][:].tolist() == [1.7e9, 1.7e9 + 2, 1.7e9 + 3]
        assert kept["train"][:].tolist() == [-1, -1, 3]
        assert kept["pulse"][:].tolist() == [-1, -1, 4]
        assert entry["end_reason"][()] == b"end"
        assert entry["start_time"][()] == b"2023-11-14T22:13:20.000000+00:00"
        assert entry["end_time"][()] == b"2023-11-14T22:13:23.000000+00:00"
        assert entry["sample_1/name"][()] == b"MS2"
        assert entry["instrument_1/name"][()] == b"SPB"
        assert entry["instrument_1/source_1/energy"][()] == 1.1e-15
        assert entry["data_1/x_pixel_size"][()] == 75e-6
        assert np.allclose(entry["data_1/corner_position"][:], [3e-4, 2.25e-4, 0.58])
        assert entry["result_1/process_1/note_1/data"][()] == b"beamline: x\n"
        assert np.array_equal(file[DATA][:], [image(0), image(2), image(3)])
        assert file[DATA].attrs["axes"] == "experiment_identifier:y:x"


def test_energy_follows_from_the_wavelength(tmp_path: Path) -> None:
    out = sink(tmp_path)
    out.start(RunStart("r1", {"wavelength_m": 1e-10, "energy_J": float("nan"), "distance_m": "far"}))
    out.write([result(0)])
    out.close()
    with h5py.File(out.files[0]) as file:
        assert file["entry_1/instrument_1/source_1/energy"][()] == pytest.approx(12398.4198 * 1.602176634e-19)
        assert "distance" not in file["entry_1/data_1"]
    sound(out.files[0])


def test_wire_bytes_are_stored_as_they_came(tmp_path: Path, wire: list[Encoded]) -> None:
    out = sink(tmp_path)
    out.write([result(at, data=decoded(chunk), chunk=chunk) for at, chunk in enumerate(wire)])
    out.close()
    with h5py.File(out.files[0]) as file:
        for at, chunk in enumerate(wire):
            mask, stored = file[DATA].id.read_direct_chunk((at, 0, 0))
            assert (mask, stored) == (0, bytes(chunk.buffer))
            assert np.array_equal(file[DATA][at], decoded(chunk))
    sound(out.files[0])


@pytest.mark.parametrize("odd", ["dtype", "shape", "compression", "none"])
def test_bytes_that_do_not_fit_are_compressed_here(tmp_path: Path, wire: list[Encoded], odd: str) -> None:
    chunk, pixels = wire[0], decoded(wire[0])
    if odd == "dtype":
        chunk = Encoded(chunk.buffer, chunk.shape, np.dtype(">u2"), "bslz4")
    elif odd == "shape":
        chunk = Encoded(chunk.buffer, (64, 256), chunk.dtype, "bslz4")
    elif odd == "compression":
        chunk = Encoded(pixels.tobytes(), chunk.shape, chunk.dtype, "none")
    out = sink(tmp_path, compression="none" if odd == "none" else "bslz4")
    out.write([result(0, data=pixels, chunk=chunk), result(1, data=pixels[:, ::-1], chunk=None)])
    out.close()
    with h5py.File(out.files[0]) as file:
        assert np.array_equal(file[DATA][:], [pixels, pixels[:, ::-1]])
        assert (file[DATA].id.get_create_plist().get_nfilters() == 0) == (odd == "none")
        if odd != "none":
            assert file[DATA].id.get_storage_size() < pixels.nbytes


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<u4", "<f4", "<f8"])
def test_every_pixel_type_comes_back(tmp_path: Path, dtype: str) -> None:
    out = sink(tmp_path)
    pixels = [image(at, dtype=dtype) for at in range(3)]
    out.write([result(at, data=pixels[at]) for at in range(3)])
    out.close()
    with h5py.File(out.files[0]) as file:
        assert file[DATA].dtype == np.dtype(dtype)
        assert np.array_equal(file[DATA][:], pixels)
    sound(out.files[0])


@pytest.mark.parametrize("together", [False, True])
def test_stacked_modules(tmp_path: Path, together: bool) -> None:
    shape = (3, 16, 32)
    pixels = [image(at, shape) for at in range(2)]
    chunks: list[Encoded | None] = [None, None]
    if together:
        with h5py.File("stack", "w", driver="core", backing_store=False) as file:
            data = file.create_dataset("d", data=pixels, chunks=(1, *shape), **hdf5plugin.Bitshuffle(cname="lz4"))
            buffers = [data.id.read_direct_chunk((at, 0, 0, 0))[1] for at in range(2)]
        chunks = [Encoded(buffer, shape, pixels[0].dtype, "bslz4") for buffer in buffers]
    mask = np.zeros(shape, np.uint32)
    mask[1] = 0x200
    out = sink(tmp_path)
    out.start(RunStart("r1", INFO | {"mask": mask, "modules": ["q1m1", "q1m2", "q1m3"]}))
    out.write([result(at, data=pixels[at], chunk=chunks[at]) for at in range(2)])
    out.close()
    sound(out.files[0])
    with h5py.File(out.files[0]) as file:
        assert file[DATA].chunks == ((1, *shape) if together else (1, 1, 16, 32))
        assert file[DATA].attrs["axes"] == "experiment_identifier:module_identifier:y:x"
        assert file["entry_1/data_1/module_identifier"][:].tolist() == [b"q1m1", b"q1m2", b"q1m3"]
        assert np.array_equal(file[DATA][:], pixels)
        assert np.array_equal(file[MASK][:], [mask, mask])


def test_masks_of_frames_reach_the_file(tmp_path: Path) -> None:
    static = np.zeros((6, 8), np.uint32)
    static[2] = 8
    own = static.copy()
    own[0, 0] = 2
    out = sink(tmp_path)
    out.start(RunStart("r1", {"mask": static}))
    out.write([result(0), result(1, mask=static.copy()), result(2, mask=own), result(3)])
    out.close()
    (path,) = out.files
    with h5py.File(path) as file:
        assert np.array_equal(file[MASK][:], [static, static, own, static])
    assert numbers(out.files) == [0, 1, 2, 3]
    sound(path)


def test_masks_without_a_bad_pixel_take_no_room(tmp_path: Path) -> None:
    out = sink(tmp_path)
    out.write([result(at) for at in range(50)])
    out.close()
    with h5py.File(out.files[0]) as file:
        assert file[MASK].shape == (50, 6, 8)
        assert not file[MASK][:].any()
        assert file[MASK].id.get_storage_size() == 0


@pytest.mark.parametrize(("masks", "shape"), [("static", (6, 8)), ("per_frame", (2, 6, 8))])
def test_masks_as_set(tmp_path: Path, masks: str, shape: tuple[int, ...]) -> None:
    mask = np.ones((6, 8), np.uint32)
    out = sink(tmp_path, masks=masks)
    out.write([result(0, mask=mask), result(1, mask=mask * 2)])
    out.close()
    assert len(out.files) == 1
    with h5py.File(out.files[0]) as file:
        assert file[MASK].shape == shape
        assert np.array_equal(file[MASK][:], mask if masks == "static" else [mask, mask * 2])


def test_a_mask_that_does_not_fit_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, mask in enumerate((np.zeros((2, 2), np.uint32), np.zeros((6, 8), np.uint8), "mask")):
        out = sink(tmp_path)
        out.start(RunStart(f"r{number}", {"mask": mask}))
        out.write([result(0, run=f"r{number}")])
        out.close()
        sound(out.files[0])
    assert caplog.text.count("left out") == 3


# Which file


def test_rolls_by_frames_and_shows_the_run_as_a_whole(tmp_path: Path) -> None:
    out = sink(tmp_path, max_frames=3)
    out.start(RunStart("r1", INFO))
    out.write([result(at) for at in range(8)])
    out.end(RunEnd("r1"))
    names = [path.name for path in out.files]
    assert names == ["r1_0001.cxi", "r1_0002.cxi", "r1_0003.cxi", "r1_master.cxi"]
    for path in out.files:
        sound(path)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    with h5py.File(moved / "r1_master.cxi") as file:
        assert np.array_equal(file[DATA][:], [image(at) for at in range(8)])
        assert file["entry_1/result_1/number"][:].tolist() == list(range(8))
        assert file["entry_1/data_1/experiment_identifier"][7] == b"r1:7"
        assert file["entry_1/end_time"][()] == b"2023-11-14T22:13:27.000000+00:00"
        assert file["entry_1/end_reason"][()] == b"end"


def test_no_master_when_parts_differ_or_it_is_not_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = sink(tmp_path, max_frames=1, master=False)
    out.write([result(0), result(1)])
    out.close()
    assert [path.name for path in out.files] == ["r1_0001.cxi", "r1_0002.cxi"]
    out = sink(tmp_path)
    out.write([result(0, run="r2"), result(1, run="r2", data=image(1, (4, 4)))])
    out.close()
    assert [path.name for path in out.files] == ["r2_0001.cxi", "r2_0002.cxi"]
    assert "no master file" in caplog.text
    assert not list(tmp_path.glob("*master*"))


def test_rolls_by_bytes(tmp_path: Path, wire: list[Encoded]) -> None:
    out = sink(tmp_path, max_gb=1e-3, master=False)
    pixels = decoded(wire[0])
    for _ in range(2):
        out.write([result(at, data=pixels, chunk=wire[0]) for at in range(20)])
    for at in range(600):
        out.write([result(at, data=pixels, chunk=wire[0])])
    out.close()
    assert numbers(out.files) == [*range(20), *range(20), *range(600)]
    sizes = [path.stat().st_size for path in out.files[:-1]]
    assert len(sizes) >= 2
    assert all(1e6 <= size < 1.3e6 for size in sizes)


def test_a_run_ends_a_file_and_so_does_another_layout(tmp_path: Path) -> None:
    out = sink(tmp_path, master=False)
    out.write([result(0), result(1, run="r2"), result(2, run="r2", data=image(2, (4, 4)))])
    out.write([result(3, run="r2", data=image(3, (4, 4), "<i4")), result(4, run="r2", data=image(4, (4, 4), "<i4"))])
    out.close()
    assert [path.name for path in out.files] == ["r1_0001.cxi", "r2_0001.cxi", "r2_0002.cxi", "r2_0003.cxi"]
    assert numbers(out.files) == [0, 1, 2, 3, 4]


def test_frames_without_a_model_fit_beside_those_with_one(tmp_path: Path) -> None:
    out = sink(tmp_path)
    two: dict[str, Any] = {"probabilities": np.array([0.25, 0.75], np.float32), "model": "b" * 64}
    out.write([result(0, **two), result(1, lit=3), result(2, **two), result(3, lit=5)])
    out.close()
    assert len(out.files) == 1
    with h5py.File(out.files[0]) as file:
        assert file["entry_1/result_1/class_probabilities"].shape == (4, 2)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r1_0001.cxi").write_bytes(b"somebody's")
    (tmp_path / "r1_0001-1.cxi.inprogress").write_bytes(b"left")
    out = sink(tmp_path)
    out.write([result(0)])
    appeared = tmp_path / "r1_0001-2.cxi"
    appeared.write_bytes(b"came meanwhile")
    out.close()
    assert out.files == [tmp_path / "r1_0001-2-1.cxi"]
    assert (tmp_path / "r1_0001.cxi").read_bytes() == b"somebody's"
    assert appeared.read_bytes() == b"came meanwhile"
    sound(out.files[0])


@pytest.mark.parametrize(
    ("run", "name"),
    [("../../etc/x", "_.._etc_x"), ("", "run"), ("...", "run"), ("a b\n€", "a_b__"), ("x" * 500, "x" * 120)],
)
def test_a_run_cannot_choose_the_folder(tmp_path: Path, run: str, name: str) -> None:
    assert safe_name(run) == name
    out = sink(tmp_path)
    out.write([result(7, run=run)])
    out.close()
    assert out.files == [tmp_path / f"{name}_0001.cxi"]
    with h5py.File(out.files[0]) as file:
        assert file["entry_1/experiment_identifier"][0].decode() == f"{run}:7"


@pytest.mark.parametrize(
    "name", ["../{run}.cxi", "{run}", "{run.x}.cxi", "{part:q}.cxi", "{when}.cxi", "{0}.cxi", ".{run}.cxi"]
)
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Hdf5Settings(directory=tmp_path, name=name)


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="set directory"):
        sink(tmp_path / "file" / "below")


# Any order of calls

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["start", "end", "flush"]), st.integers(0, 2)),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 4), kinds=st.integers(0, 2**32 - 1))
def test_closed_files_hold_what_was_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], limit: int, kinds: int
) -> None:
    out = sink(tmp_path_factory.mktemp("any"), max_frames=limit, master=False)
    rng = np.random.default_rng(kinds)
    kept: list[int] = []
    run, number = "r0", 0
    for step, n in steps:
        if step == "write":
            results = []
            for _ in range(n):
                keep, odd = rng.random() < 0.7, rng.random() < 0.2
                data = image(number, (4, 4)) if odd else image(number)
                results.append(result(number, run, weight=float(keep), data=data))
                kept += [number] * keep
                number += 1
            assert out.write(results) == []
        elif step == "start":
            run = f"r{n}"
            out.start(RunStart(run, INFO))
        elif step == "end":
            out.end(RunEnd(run))
        else:
            out.flush()
    out.close()
    assert numbers(out.files) == kept
    with_images = [pixels for path in out.files for pixels in h5py.File(path)[DATA][:]]
    assert all(pixels.ravel()[0] == at for pixels, at in zip(with_images, kept, strict=True))
    for path in out.files:
        sound(path)
    assert all(not list(path.parent.glob("*.inprogress")) for path in out.files[:1])


# Full disks and broken files


class Disk:
    """Free space that a test decides."""

    def __init__(self, free: float = 1e12) -> None:
        self.bytes = free

    def __call__(self, directory: Path) -> int:
        if self.bytes < 0:
            raise OSError(errno.ESTALE, "Stale file handle", str(directory))
        return int(self.bytes)


def test_little_space_closes_the_file_and_more_space_begins_the_next(tmp_path: Path) -> None:
    disk, clock, told = Disk(), Clock(), Told()
    out = Hdf5Sink(Hdf5Settings(directory=tmp_path, min_free_gb=2.0, master=False), told, free=disk, clock=clock)
    assert out.write([result(0)]) == []
    assert out.healthy() is None
    disk.bytes = 1.9e9
    out.flush()
    assert [path.name for path in out.files] == ["r1_0001.cxi"]
    failures = out.write([result(1), result(2, weight=0.0), result(3)])
    assert [failure.key.number for failure in failures] == [1, 3]
    assert {failure.reason for failure in failures} == {"disk_full"}
    for word in (str(tmp_path), "1.9 GB free", "min_free_gb 2", "free some space"):
        assert word in failures[0].detail
        assert word in (out.healthy() or "")
    disk.bytes = 2.1e9
    out.flush()
    assert out.healthy() is not None, "a little more is not enough: the next file would fill it again"
    disk.bytes = 2.3e9
    out.flush()
    assert out.healthy() is None
    assert out.write([result(4)]) == []
    out.close()
    assert numbers(out.files) == [0, 4]
    assert told.events.count(("disk_full", 1)) == 1


def test_space_is_looked_at_before_a_first_file_and_a_disk_that_cannot_tell_is_tried(tmp_path: Path) -> None:
    disk, clock = Disk(0), Clock()
    out = Hdf5Sink(Hdf5Settings(directory=tmp_path), free=disk, clock=clock)
    assert [failure.reason for failure in out.write([result(0)])] == ["disk_full"]
    assert list(tmp_path.iterdir()) == []
    disk.bytes = -1
    out = Hdf5Sink(Hdf5Settings(directory=tmp_path), free=disk, clock=clock)
    assert out.write([result(0)]) == []
    out.close()
    assert numbers(out.files) == [0]


def break_disk(out: Hdf5Sink) -> None:
    """From here on every write to the open file fails with ENOSPC, as on a full disk; reads give zeros."""
    path = out.writing
    assert path is not None
    for link in Path("/proc/self/fd").iterdir():
        if link.exists() and os.path.realpath(link) == str(path.resolve()):
            full = os.open("/dev/full", os.O_RDWR)
            writable = os.stat(f"/proc/self/fd/{link.name}")
            assert writable
            os.dup2(full, int(link.name))
            os.close(full)


@pytest.mark.parametrize("when", ["write", "flush", "close"])
def test_a_file_that_fails_is_given_up_and_the_next_one_begun(tmp_path: Path, when: str) -> None:
    clock, told = Clock(), Told()
    out = sink(tmp_path, told, clock=clock, master=False)
    out.write([result(at) for at in range(3)])
    out.flush()
    big = np.random.default_rng(0).integers(0, 2**16, (256, 256), dtype=np.uint16)
    out.end(RunEnd("r1"))
    out.write([result(at, "r2", data=big) for at in range(3)])
    out.flush()
    out.write([result(3, "r2", data=big)])
    break_disk(out)
    failures: Sequence[Failure] = []
    if when == "write":
        failures = out.write([result(4, "r2", data=big), result(5, "r2", data=big)])
        assert [failure.key.number for failure in failures] == [4, 5]
        assert {failure.reason for failure in failures} == {"disk_full"}
        assert "No space left" in failures[0].detail
        assert "\n" not in failures[0].detail
    elif when == "flush":
        out.flush()
    else:
        out.end(RunEnd("r2"))
        out.start(RunStart("r2"))
    assert ("file_failed", 1) in told.events
    assert [(failure.key.number, failure.reason) for failure in out.lost()] == [(3, "lost")], "taken, never flushed"
    assert not out.lost(), "told once"
    assert out.healthy() is not None
    assert [failure.key.number for failure in out.write([result(6, "r2")])] == [6], "not at once"
    clock.now += 1.5
    assert out.write([result(7, "r2")]) == []
    assert out.healthy() is None
    out.close()
    assert [path.name for path in out.files] == ["r1_0001.cxi", "r2_0002.cxi"] if when != "close" else True
    left = tmp_path / "r2_0001.cxi.inprogress"
    with h5py.File(left, "r", swmr=True) as file:
        assert file["entry_1/number_of_frames"][()] == 3
        assert np.array_equal(file[DATA][:3], [big] * 3)


def test_tries_come_less_and_less_often(tmp_path: Path) -> None:
    clock, told = Clock(), Told()
    out = sink(tmp_path / "gone", told, clock=clock)
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_text("not a folder any more")
    tries = []
    for _ in range(400):
        before = len(told.events)
        assert [failure.reason for failure in out.write([result(0)])] == ["file"]
        tries += [clock.now] * (len(told.events) - before)
        clock.now += 0.5
    assert np.diff(tries).tolist() == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    (tmp_path / "gone").unlink()
    clock.now += 60
    assert out.write([result(1)]) == []
    out.close()
    assert numbers(out.files) == [1]


FULL_DISK = """
import sys
import numpy as np
from pathlib import Path
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.sinks.hdf5 import Hdf5Settings, Hdf5Sink
folder, written, failed = Path(sys.argv[1]), 0, 0
out = Hdf5Sink(Hdf5Settings(directory=folder, min_free_gb=0, masks="static"))
rng = np.random.default_rng(0)
for at in range(300):
    noise = rng.integers(0, 2**16, (64, 64), dtype=np.uint16)
    failures = out.write([Result(Frame(Key("r", at), noise, 0.0, 1e9), Outcome.ACCEPTED, 1.0, weight=1.0)])
    failed += len(failures)
    if at % 10 == 9:
        out.flush()
out.close()
print(failed, [failure.reason for failure in failures])
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        done = subprocess.run([sys.executable, "-c", FULL_DISK, small], check=False, capture_output=True, text=True)
        left = list(small.iterdir())
        with h5py.File(left[0], "r", swmr=True) as file:
            count = int(file["entry_1/number_of_frames"][()])
            assert count >= 50
            assert np.unique(file[DATA][count - 1]).size > 1000
            assert file["entry_1/result_1/number"][:count].tolist() == list(range(count))
    finally:
        subprocess.run(["umount", small], check=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "infinite loop" not in done.stderr
    assert int(done.stdout.split()[0]) > 100
    assert "disk_full" in done.stdout


def test_memory_and_file_overhead_stay_flat(tmp_path: Path) -> None:
    """A long run of small frames: what HDF5 keeps in memory does not grow with them."""
    out = sink(tmp_path, max_frames=10**9, masks="static")
    burst = [result(at) for at in range(500)]

    def megabytes() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    for turn in range(60):
        out.write(burst)
        if turn % 5 == 0:
            out.flush()
        if turn == 20:
            before = megabytes()
    after = megabytes()
    out.close()
    assert after - before < 8.0
