"""Constants: files of both kinds, and every problem named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from beamsieve.stream.decode.calibration_settings import CalibrateSettings, CommonModeSettings
from beamsieve.stream.decode.constants import ConstantsError, load_constants, read_dataset
from pydantic import ValidationError

SHAPE = (4, 5)


class Bomb:
    """Makes a file whose unpickling would be noticed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("exploded").touch, ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    dark, gain = rng.normal(100, 5, SHAPE), np.ones(SHAPE, ">f4")
    np.savez(tmp_path / "c.npz", dark=dark, gain=gain, mask=np.eye(4, 5, dtype="u1"), small=dark[:2], zero=gain * 0)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["cal/dark"] = dark
        file["cal/gain"] = gain
        file["cal/words"] = "no numbers"
    broken = gain.copy()
    broken[1, 2], broken[3, 3] = np.nan, 0
    np.save(tmp_path / "broken.npy", broken)
    return tmp_path


def standard(**words: Any) -> CalibrateSettings:
    return CalibrateSettings(kind="standard", **words)


def test_npz_hdf5_and_npy_say_the_same(folder: Path) -> None:
    one = load_constants(standard(dark="c.npz:dark", gain="c.npz:gain"), SHAPE, folder)
    two = load_constants(standard(dark="c.h5:/cal/dark", gain=f"{folder}/c.h5:cal/gain"), SHAPE, folder)
    assert one.dark is not None
    assert one.gain is not None
    assert two.dark is not None
    assert one.dark.dtype == np.float32
    assert one.gain.dtype == np.dtype("f4")
    assert np.array_equal(one.dark, two.dark)
    assert not one.mask.any()


def test_all_problems_at_once_with_file_dataset_and_remedy(folder: Path) -> None:
    words = standard(dark="c.npz:small", gain="c.npz:nothing", mask="absent.h5:/m", noise="c.h5:/cal/words")
    with pytest.raises(ConstantsError) as caught:
        load_constants(words, SHAPE, folder)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "dark: c.npz:small: shape (2, 5); the detector needs (4, 5)" in problems
    assert "no dataset 'nothing'; the file has dark, gain, mask, small, zero" in problems
    assert "absent.h5: no such file" in problems
    assert "/cal/words has dtype object; expected numbers" in problems


def test_gain_must_be_finite_and_above_zero(folder: Path) -> None:
    with pytest.raises(ConstantsError, match=r"gain: broken\.npy: 2 pixels not finite and above 0.*first at \(1, 2\)"):
        load_constants(standard(gain="broken.npy"), SHAPE, folder)
    with pytest.raises(ConstantsError, match="20 pixels"):
        load_constants(standard(gain="c.npz:zero"), SHAPE, folder)


def test_bad_constants_under_the_mask_or_marked_dead_are_accepted(folder: Path) -> None:
    mask = np.zeros(SHAPE, np.uint32)
    mask[1, 2] = mask[3, 3] = 0x80
    accepted = load_constants(standard(gain="broken.npy"), SHAPE, folder, sender_mask=mask)
    assert accepted.gain is not None
    assert np.isfinite(accepted.gain).all()
    assert (accepted.gain > 0).all()
    marked = load_constants(standard(gain="broken.npy", bad_constants="mask"), SHAPE, folder)
    assert np.argwhere(marked.mask == 0x8).tolist() == [[1, 2], [3, 3]]


def test_mask_conventions_and_hot_pixels(folder: Path) -> None:
    bad = load_constants(CalibrateSettings(mask="c.npz:mask"), SHAPE, folder)
    good = load_constants(CalibrateSettings(mask="c.npz:mask", mask_is="good"), SHAPE, folder)
    assert np.count_nonzero(bad.mask) == 4
    assert np.count_nonzero(good.mask) == 16
    words = standard(dark="c.npz:dark", hot_dark_adu=100, noise="c.npz:dark", hot_noise_adu=104)
    hot = load_constants(words, SHAPE, folder)
    dark = read_dataset("c.npz:dark", folder)
    assert np.array_equal(hot.mask == 0x4, dark > 100)


def test_a_sender_mask_of_another_shape_is_a_problem(folder: Path) -> None:
    with pytest.raises(ConstantsError, match=r"mask of the sender: shape \(2, 2\)"):
        load_constants(CalibrateSettings(), SHAPE, folder, sender_mask=np.zeros((2, 2), np.uint32))


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    np.savez(folder / "evil.npz", dark=np.array([Bomb()], dtype=object))
    np.save(folder / "evil.npy", np.array([Bomb()], dtype=object))
    for reference in ("evil.npz:dark", "evil.npy"):
        with pytest.raises(ConstantsError, match="cannot be read"):
            read_dataset(reference)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["junk.npz:dark", "junk.h5:/dark", "junk.npy"])
def test_files_of_junk_are_named(tmp_path: Path, name: str) -> None:
    for content in (b"", b"\x00" * 64, b"PK\x03\x04 not a zip", b"\x93NUMPY\x01\x00\xff\xff"):
        (tmp_path / name.split(":", maxsplit=1)[0]).write_bytes(content)
        with pytest.raises(ConstantsError, match="junk"):
            read_dataset(name, tmp_path)


def test_values_float32_cannot_hold_are_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.full(SHAPE, 1e300))
    with pytest.raises(ConstantsError, match="not finite"):
        load_constants(standard(dark="huge.npy"), SHAPE, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dark": "a.h5:/b"}, "dark has no effect with kind: none"),
        ({"round": "nearest"}, "round has no effect"),
        ({"common_mode": CommonModeSettings(over="row")}, "common_mode has no effect"),
        ({"kind": "jungfrau"}, "needs dark"),
        ({"kind": "jungfrau", "dark": "a:b", "round": "nearest"}, "need photon_energy_kev"),
        ({"kind": "jungfrau", "dark": "a:b", "adu_per_photon": 3}, "ADU/keV"),
        ({"kind": "standard", "adu_per_photon": 3, "photon_energy_kev": 3}, "give one"),
        ({"kind": "standard", "dark": ("a:b", "c:d", "e:f")}, "three of each"),
        ({"kind": "standard", "hot_noise_adu": 3}, "needs noise"),
    ],
)
def test_words_that_do_not_fit_together(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CalibrateSettings(**words)


def test_an_empty_block_changes_no_pixel() -> None:
    assert not CalibrateSettings().changes_pixels
    assert not CalibrateSettings(mask="a.h5:/b", saturation_adu=100).changes_pixels
    assert CalibrateSettings(kind="standard").changes_pixels
