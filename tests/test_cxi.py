"""The checker of CXI files: it passes what is right and finds every rule broken; other readers open what we write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from beamsieve.stream.__main__ import app
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.sinks.check_cxi import FILE_RULE, RULES, Finding, check
from beamsieve.stream.sinks.cxi import PLANCK_TIMES_LIGHT, iso_time
from beamsieve.stream.sinks.cxi_flags import lookup3
from beamsieve.stream.sinks.cxi_summary import hit_rate, summarise
from beamsieve.stream.sinks.hdf5 import Hdf5Settings, Hdf5Sink
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

ENTRY, DETECTOR, RESULT = "entry_1", "entry_1/instrument_1/detector_1", "entry_1/result_1"
SHAPE = (3, 8, 16)


def write(folder: Path, hits: int = 4, misses: int = 2, shape: tuple[int, ...] = SHAPE, fraction: float = 0.1) -> Path:
    """A file of ours: hits, then misses kept with the given fraction."""
    out = Hdf5Sink(Hdf5Settings(directory=folder, min_free_gb=0), config="beamline: xfel_hits\n")
    info = {"energy_J": 1.1e-15, "distance_m": 0.7, "x_pixel_size_m": 1e-4, "y_pixel_size_m": 1e-4}
    mask = np.zeros(shape, np.uint32)
    mask[..., 0] = 0x200
    out.start(RunStart("run 7", info | {"mask": mask}))
    results = []
    for at in range(hits + misses):
        hit = at < hits
        probabilities = np.array([0.1, 0.6, 0.1, 0.1, 0.1] if hit else [0.9, 0.1, 0, 0, 0], np.float32)
        found = {"probabilities": probabilities, "label": int(hit), "model": "0123456789abcdef" * 4, "threshold": 0.5}
        frame = Frame(Key("run 7", at), np.full(shape, at, "<u2"), 0.0, 1e9 + at)
        outcome = Outcome.ACCEPTED if hit else Outcome.REJECTED
        results.append(Result(frame, outcome, float(probabilities[1]), weight=1 if hit else 1 / fraction, found=found))
    assert not out.write(results)
    out.end(RunEnd("run 7"))
    return out.files[0]


def broken(path: Path) -> set[str]:
    return {finding.rule for finding in check(path) if not finding.ok}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to which every rule applies: ours, with what CXI knows beyond it."""
    path = write(tmp_path_factory.mktemp("good"))
    with h5py.File(path, "r+") as file:
        detector, result = file[DETECTOR], file[RESULT]
        detector["corner_position"] = np.zeros((3, 3))
        detector["corner_position"].attrs["axes"] = "module_identifier:coordinate"
        detector["basis_vectors"] = np.zeros((3, 2, 3))
        detector["tags"] = np.zeros((2, 6), np.int8)
        detector["data_error"] = np.zeros((6, *SHAPE), np.float32)
        result["nPeaks"] = np.array([1, 0, 2, 0, 0, 0])
        result["peakXPosRaw"] = np.zeros((6, 2), np.float32)
        image = file.create_group("entry_1/image_1")
        image["data"] = np.zeros((4, 4), np.complex64)
        image["data_space"], image["data_type"] = "diffraction", "amplitude"
        file["entry_1/sample_1/unit_cell"] = np.arange(6.0)
        file["entry_1/sample_1/geometry_1/translation"] = np.zeros(3)
    return path


def replaced(name: str, value: object, dtype: object = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, data=value, dtype=dtype)

    return change


def gone(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def first(name: str, value: object) -> Callable[[h5py.File], None]:
    """Change the first entry of a column."""

    def change(file: h5py.File) -> None:
        file[name][0] = value

    return change


def link(name: str, target: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name] = h5py.SoftLink(target)

    return change


def axes(name: str, words: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if words is None:
            del file[name].attrs["axes"]
        else:
            file[name].attrs["axes"] = words

    return change


def torn(file: h5py.File) -> None:
    file[f"{DETECTOR}/data"].id.write_direct_chunk((0, 0, 0, 0), b"\xff" * 40)


def cut(file: h5py.File) -> None:
    file[f"{RESULT}/label"].resize(2, axis=0)


MUTATIONS: list[tuple[str, Callable[[h5py.File], None]]] = [
    ("links", link("entry_1/image_1/mask", "/nowhere")),
    ("links", lambda file: file.__setitem__("entry_1/image_1/mask", h5py.ExternalLink("gone.h5", "/x"))),
    ("version", gone("cxi_version")),
    ("version", replaced("cxi_version", 1.6)),
    ("version", replaced("cxi_version", 16)),
    ("version", replaced("cxi_version", 1600)),
    ("entries", replaced("number_of_entries", 2)),
    ("entries", replaced("number_of_entries", "one")),
    ("entries", lambda file: file.move("entry_1", "entry1")),
    ("numbering", lambda file: file.move("entry_1/image_1", "entry_1/image_2")),
    ("numbering", lambda file: file.move("entry_1/sample_1", "entry_1/sample_0")),
    ("data", gone("entry_1/data_1")),
    ("data", lambda file: (gone("entry_1/data_1")(file), file.create_group("entry_1/data_1"))[0]),
    ("numeric", replaced("entry_1/image_1/data", np.zeros((2, 2), [("re", "f4"), ("im", "f4")]))),
    ("numeric", replaced("entry_1/image_1/data", "words")),
    ("errors", replaced(f"{DETECTOR}/data_error", np.zeros((6, 3, 8)))),
    ("axes", axes(f"{DETECTOR}/data", "experiment_identifier:y:x")),
    ("axes", axes(f"{DETECTOR}/data", "experiment_identifier:panel:y:x")),
    ("axes", axes(f"{DETECTOR}/data", "module_identifier:module_identifier:y:x")),
    ("axes", axes(f"{DETECTOR}/data", 4)),
    ("axes", axes(f"{DETECTOR}/data", None)),
    ("axes", gone(f"{DETECTOR}/experiment_identifier")),
    ("identifier", first(f"{ENTRY}/experiment_identifier", b"run 7:1")),
    ("identifier", first(f"{ENTRY}/experiment_identifier", b"")),
    ("identifier", replaced(f"{ENTRY}/experiment_identifier", np.arange(6))),
    ("text", replaced("entry_1/title", 7)),
    ("text", replaced("entry_1/sample_1/name", [b"a", b"b"])),
    ("times", replaced("entry_1/start_time", "2026-11-20 05:35:18+00:00")),
    ("times", replaced("entry_1/start_time", "2026-11-20T05:35:18")),
    ("times", replaced("entry_1/end_time", "2026-13-20T05:35:18Z")),
    ("times", replaced("entry_1/end_time", 1.7e9)),
    ("time_order", replaced("entry_1/end_time", "1999-01-01T00:00:00+0100")),
    ("units", replaced("entry_1/instrument_1/source_1/energy", 7000.0)),
    ("units", replaced("entry_1/instrument_1/source_1/energy", "7 keV")),
    ("units", replaced(f"{DETECTOR}/distance", 700.0)),
    ("units", replaced(f"{DETECTOR}/x_pixel_size", 0.1)),
    ("units", replaced(f"{DETECTOR}/y_pixel_size", np.nan)),
    ("mask", replaced(f"{DETECTOR}/mask", np.zeros(SHAPE, np.uint8))),
    ("mask", replaced(f"{DETECTOR}/mask", np.zeros(SHAPE, np.float32))),
    ("mask", replaced(f"{DETECTOR}/mask", np.zeros((8, 17), np.uint32))),
    ("geometry", replaced(f"{DETECTOR}/corner_position", np.zeros((3, 2)))),
    ("geometry", replaced("entry_1/sample_1/geometry_1/translation", np.zeros(4))),
    ("modules", replaced(f"{DETECTOR}/module_identifier", [b"a", b"b", b"a"])),
    ("modules", replaced(f"{DETECTOR}/corner_position", np.zeros((2, 3)))),
    ("score", replaced(f"{DETECTOR}/tags", np.zeros((2, 6), np.int32))),
    ("score", replaced(f"{DETECTOR}/tags", np.zeros((6, 2), np.int8))),
    ("image", replaced("entry_1/image_1/data_space", "Fourier")),
    ("image", replaced("entry_1/image_1/data_type", 3)),
    ("peaks", replaced(f"{RESULT}/nPeaks", np.zeros((6, 1), int))),
    ("peaks", replaced(f"{RESULT}/nPeaks", np.array([1, 0, 3, 0, 0, 0]))),
    ("peaks", replaced(f"{RESULT}/peakXPosRaw", np.zeros((5, 2)))),
    ("unit_cell", replaced("entry_1/sample_1/unit_cell", np.zeros(3))),
    ("ours.lengths", cut),
    ("ours.lengths", gone(f"{RESULT}/pulse")),
    ("ours.lengths", replaced("entry_1/number_of_frames", 5)),
    ("ours.weights", first(f"{RESULT}/sampling_weight", 2.0)),
    ("ours.weights", first(f"{RESULT}/sampling_weight", 0.5)),
    ("ours.weights", first(f"{RESULT}/sampling_weight", np.nan)),
    ("ours.reasons", first(f"{RESULT}/accepted_reason", b"liked it")),
    ("ours.reasons", first(f"{RESULT}/outcome", b"rejected")),
    ("ours.scores", first(f"{RESULT}/class_probabilities", [0.5, 0.6, 0, 0, 0])),
    ("ours.scores", first(f"{RESULT}/class_probabilities", [1.5, -0.5, 0, 0, 0])),
    ("ours.model", first(f"{RESULT}/model_id", b"resnet10")),
    ("ours.frames", torn),
]


def test_a_file_to_which_every_rule_applies_is_good(good: Path) -> None:
    findings = check(good)
    assert not [finding for finding in findings if not finding.ok]
    assert {finding.rule for finding in findings} == {FILE_RULE, *RULES}


def test_every_rule_has_a_way_to_break_it() -> None:
    assert {rule for rule, _ in MUTATIONS} == set(RULES)


@pytest.mark.parametrize(("rule", "change"), MUTATIONS, ids=[f"{at}-{rule}" for at, (rule, _) in enumerate(MUTATIONS)])
def test_a_broken_rule_is_found(good: Path, tmp_path: Path, rule: str, change: Callable[[h5py.File], None]) -> None:
    path = Path(shutil.copy(good, tmp_path / "x.cxi"))
    with h5py.File(path, "r+") as file:
        change(file)
    findings = [finding for finding in check(path) if finding.rule == rule and not finding.ok]
    assert findings, broken(path)
    assert all(finding.detail and finding.where for finding in findings)


def test_other_units_are_allowed_if_they_are_named(good: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(good, tmp_path / "x.cxi"))
    with h5py.File(path, "r+") as file:
        replaced("entry_1/instrument_1/source_1/energy", 7000.0)(file)
        file["entry_1/instrument_1/source_1/energy"].attrs["units"] = "eV"
    assert broken(path) == set()


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 200])
def test_what_is_no_hdf5_file_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.cxi"
    path.write_bytes(content)
    assert [(finding.rule, finding.ok) for finding in check(path)] == [(FILE_RULE, False)]
    assert [finding.rule for finding in check(tmp_path / "missing.cxi")] == [FILE_RULE]


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 10**6), value=st.binary(min_size=1, max_size=8))
def test_damage_never_raises(good: Path, tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes) -> None:
    content = bytearray(good.read_bytes())
    at %= len(content)
    content[at : at + len(value)] = value
    path = tmp_path_factory.mktemp("damage") / "x.cxi"
    path.write_bytes(content)
    assert all(isinstance(finding, Finding) for finding in check(path))


def test_a_minimal_file_of_another_program(tmp_path: Path) -> None:
    """The smallest CXI file of the specification: an entry with one image."""
    path = tmp_path / "minimal.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/data_1/data"] = np.zeros((10, 10))
    assert broken(path) == set()
    told = CliRunner().invoke(app, ["inspect", str(path)])
    assert told.exit_code == 0, told.output


# What inspect says


def test_inspect_counts_and_estimates(tmp_path: Path) -> None:
    path = write(tmp_path, hits=30, misses=97, shape=(8, 8), fraction=0.1)
    out, picture = tmp_path / "x.json", tmp_path / "x.png"
    told = CliRunner().invoke(app, ["inspect", str(path), "--json", str(out), "--png", str(picture)])
    assert told.exit_code == 0, told.output
    assert "30" in told.output
    (report,) = json.loads(out.read_text())
    summary = report["summary"]
    assert report["ok"]
    assert (summary["frames"], summary["hits"], summary["random_misses"]) == (127, 30, 97)
    assert summary["stand_for"] == pytest.approx(1000, rel=1e-6)
    assert summary["hit_rate"]["rate"] == pytest.approx(0.03, rel=1e-6)
    assert summary["hit_rate"]["low"] < 0.03 < summary["hit_rate"]["high"]
    assert summary["models"] == ["0123456789abcdef" * 4]
    assert summary["thresholds"] == [0.5]
    assert summary["labels"] == {"0": 97, "1": 30}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_says_what_is_wrong_and_exits_with_1(good: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(good, tmp_path / "x.cxi"))
    with h5py.File(path, "r+") as file:
        replaced("entry_1/instrument_1/source_1/energy", 7000.0)(file)
    told = CliRunner().invoke(app, ["inspect", str(path), str(tmp_path / "missing.cxi")])
    assert told.exit_code == 1
    for word in ("units", "7000", "missing.cxi"):
        assert word in told.output


def test_no_rate_without_random_misses(tmp_path: Path) -> None:
    assert summarise(write(tmp_path, hits=3, misses=0)).hit_rate is None


def test_the_interval_holds_the_true_rate_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    true, fraction, shots = 0.04, 0.05, 5000
    inside = 0
    for _ in range(2000):
        hits = int(rng.binomial(shots, true))
        misses = int(rng.binomial(shots - hits, fraction))
        rate = hit_rate(hits, np.full(misses, 1 / fraction))
        assert rate is not None
        assert rate.rate == pytest.approx(hits / (hits + misses / fraction))
        inside += rate.low <= true <= rate.high
    assert 0.93 < inside / 2000 < 0.97


# Small things that others define


def test_lookup3_is_the_published_hash() -> None:
    """Values of the driver in Bob Jenkins' lookup3.c."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_lookup3_is_the_one_hdf5_uses(good: Path) -> None:
    head = good.read_bytes()[:48]
    assert lookup3(head[:44]) == int.from_bytes(head[44:], "little")


def test_constants_and_times() -> None:
    assert pytest.approx(1.98644586e-25, rel=1e-8) == PLANCK_TIMES_LIGHT
    assert iso_time(0.25) == "1970-01-01T00:00:00.250000+00:00"
    assert len(iso_time(4e9)) == 32


# Readers that we did not write


def test_the_tools_of_hdf5_read_it(tmp_path: Path) -> None:
    """h5dump of the HDF5 that Linux distributions ship (1.10 on), which CrystFEL and others are built with."""
    if shutil.which("h5dump") is None:
        pytest.skip("needs h5dump (Debian: hdf5-tools)")
    path = write(tmp_path, shape=(8, 16))
    environment = os.environ | {"HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}

    def dumped(name: str, *words: str) -> str:
        command = ["h5dump", "-d", f"/{name}", *words, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "(0): 1, 1, 1, 1, 10, 10" in dumped(f"{RESULT}/sampling_weight")
    assert "(3,2,1): 3, 3, 3, 3" in dumped(f"{DETECTOR}/data", "-s", "3,2,1", "-c", "1,1,4")


def test_what_crystfel_asks_for_is_there(tmp_path: Path) -> None:
    """CrystFEL finds images by ``data = /entry_1/data_1/data`` and ``dim0 = %``, the mask and the photon energy."""
    path = write(tmp_path, shape=(8, 16))
    with h5py.File(path) as file:
        data, mask = file["/entry_1/data_1/data"], file["/entry_1/data_1/mask"]
        assert data.ndim == 3
        assert mask.shape == data.shape
        assert (mask[:, :, 0] == 0x200).all()
        electronvolt = file["/entry_1/instrument_1/source_1/energy"][()] / 1.602176634e-19
        assert electronvolt == pytest.approx(6865.66, abs=0.01)
