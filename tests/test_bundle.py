"""Bundles: what is saved loads again, and what is not the file of its card is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from beamsieve.models.bundle import BundleError, available, load_bundle, quiet_torchscript, save_bundle, search_path
from beamsieve.models.card import Card, CardError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

CARD: dict[str, Any] = {
    "version": "1",
    "task": "hits",
    "input": {"name": "photons", "shape": [4, 6], "dtype": "float32", "normalisation": "none", "pixel_um": 75},
    "output": {"classes": ["0", "1", "2"], "kind": "logits"},
    "threshold": 0.5,
    "training": {"seed": 3, "free": ["anything"]},
    "scores": {"accuracy": 0.99},
    "trained_by": "a test",
    "licence": "Apache-2.0",
}


def script(seed: int = 0) -> torch.jit.ScriptModule:
    torch.manual_seed(seed)
    with quiet_torchscript():
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(24, 3)).eval())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_bundle(tmp_path, "tiny", script(), CARD)


def refused(path: str | Path, directory: Path | None = None) -> BundleError:
    with pytest.raises(BundleError) as caught:
        load_bundle(path, directory)
    return caught.value


def change_card(path: Path, **changes: object) -> None:
    card_path = path.with_suffix(".json")
    card_path.write_text(json.dumps({**json.loads(card_path.read_text()), **changes}))


def put_file(path: Path, data: bytes) -> None:
    """Another file with the hash that its card says."""
    path.write_bytes(data)
    change_card(path, sha256=hashlib.sha256(data).hexdigest())


def test_what_is_saved_loads_again(saved: Path) -> None:
    bundle = load_bundle(saved)
    frames = torch.rand(5, 4, 6)
    torch.testing.assert_close(bundle.module(frames), script()(frames), rtol=0, atol=0)
    assert bundle.card.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert bundle.card.input.shape == (4, 6)
    assert bundle.card.input.pixel_um == 75
    assert bundle.card.output.classes == ("0", "1", "2")
    assert bundle.card.training == CARD["training"]
    assert bundle.card.torch == torch.__version__
    assert bundle.card.tolerance.bfloat16 > bundle.card.tolerance.float32 > 0
    assert not bundle.module.training


def test_lengths_in_angstrom_are_kept_and_left_out_where_unknown(tmp_path: Path) -> None:
    wanted = {**CARD["input"], "pixel_a": 4.5, "diameter_a": 260}
    card = load_bundle(save_bundle(tmp_path, "picker", script(), {**CARD, "input": wanted})).card
    assert (card.input.pixel_a, card.input.diameter_a) == (4.5, 260.0)
    assert Card.parse(json.loads(json.dumps(card.to_json()))) == card
    without = load_bundle(save_bundle(tmp_path, "tiny", script(), CARD)).card
    assert (without.input.pixel_a, without.input.diameter_a) == (None, None)
    assert not {"pixel_a", "diameter_a"} & set(without.to_json()["input"])


@pytest.mark.parametrize("field", ["pixel_a", "diameter_a"])
@pytest.mark.parametrize("value", [0, -1.5, 1e-3, 1e7, "4.5", True, None, [4.5], float("nan"), float("inf")])
def test_what_is_no_length_in_angstrom_is_a_mistake(field: str, value: object) -> None:
    whole = {**CARD, "name": "tiny", "sha256": "0" * 64, "torch": "2", "created": "now"}
    with pytest.raises(CardError) as caught:
        Card.parse({**whole, "input": {**CARD["input"], field: value}})
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [f"input.{field}"]
    assert "ångström" in caught.value.mistakes[0]


def test_names_with_dots_keep_them(tmp_path: Path) -> None:
    assert save_bundle(tmp_path, "net-1.5", script(), CARD).name == "net-1.5.pt"
    assert load_bundle("net-1.5", tmp_path).card.name == "net-1.5"


def test_card_path_and_model_path_name_the_same_bundle(saved: Path) -> None:
    assert load_bundle(saved.with_suffix(".json")).path == load_bundle(str(saved)).path == saved


def test_a_card_reads_what_it_writes(saved: Path) -> None:
    card = load_bundle(saved).card
    assert Card.parse(json.loads(json.dumps(card.to_json()))) == card


def test_a_model_without_card_is_refused(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    error = refused(saved)
    assert error.reason == "card"
    assert "tiny.json" in error.detail


def test_a_card_without_model_is_refused(saved: Path) -> None:
    saved.unlink()
    assert refused(saved).reason == "missing"


def test_a_changed_file_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    assert refused(saved).reason == "sha256"


def test_a_file_cut_short_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    assert refused(saved).reason == "sha256"


@pytest.mark.parametrize("what", [nn.Linear(2, 2), {"weight": torch.zeros(3)}], ids=["eager module", "state dict"])
def test_pickled_models_are_refused_though_the_hash_is_right(saved: Path, what: object) -> None:
    torch.save(what, saved)
    put_file(saved, saved.read_bytes())
    error = refused(saved)
    assert error.reason == "format"
    assert "torch.jit.script" in error.detail


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "save", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))], ids=["torch", "pickle"]
)
def test_no_pickle_is_run(saved: Path, tmp_path: Path, save: Any) -> None:
    save(Trap(tmp_path / "sprung"), saved)
    put_file(saved, saved.read_bytes())
    assert refused(saved).reason == "format"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("data", [b"", b"not a model", b"PK\x03\x04" + bytes(100)])
def test_other_files_are_refused_though_the_hash_is_right(saved: Path, data: bytes) -> None:
    put_file(saved, data)
    assert refused(saved).reason == "format"


def test_an_unknown_task_is_refused(saved: Path) -> None:
    change_card(saved, task="poetry")
    error = refused(saved)
    assert error.reason == "task"
    assert "hits" in error.detail


def test_all_mistakes_of_a_card_are_listed_at_once(saved: Path) -> None:
    wrong_input = {"name": "photons", "shape": [4, 0], "dtype": "float64", "normalization": "none"}
    change_card(saved, threshold=1.5, licence="", input=wrong_input, verson="2", tolerance={"bfloat16": "wide"})
    detail = refused(saved).detail
    for field in ("threshold", "licence", "input.shape", "input.dtype", "input.normalisation", "tolerance.bfloat16"):
        assert f"\n  {field}:" in detail
    assert "verson: unknown; did you mean version?" in detail
    assert "input.normalization: unknown; did you mean normalisation?" in detail


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"card"', "\x00"])
def test_a_card_that_is_no_mapping_is_refused(saved: Path, text: str) -> None:
    saved.with_suffix(".json").write_text(text)
    assert refused(saved).reason == "card"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(sorted({*CARD, "sha256", "name", "torch", "created"})), value=ANYTHING)
def test_nonsense_in_a_card_is_a_mistake_that_names_the_field(field: str, value: object) -> None:
    whole = {**CARD, "name": "tiny", "sha256": "0" * 64, "torch": "2", "created": "now"}
    texts = ("version", "trained_by", "licence", "torch", "created", "name")
    may_be_right = {dict: ("training", "scores"), str: texts, float: ("threshold",), int: ("threshold",)}
    mistakes: tuple[str, ...] = ()
    try:
        Card.parse({**whole, field: value})
    except CardError as error:
        mistakes = error.mistakes
    assert all(mistake.startswith(field) for mistake in mistakes)
    if not mistakes:
        assert field in may_be_right[type(value)]
    if field in ("training", "scores"):
        assert bool(mistakes) != isinstance(value, dict)


def test_nothing_is_written_for_a_card_with_mistakes(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="threshold"):
        save_bundle(tmp_path / "new", "tiny", script(), {**CARD, "threshold": -1})
    assert not (tmp_path / "new").exists()


def test_saving_again_replaces(saved: Path, tmp_path: Path) -> None:
    before = load_bundle("tiny", tmp_path).card.sha256
    save_bundle(tmp_path, "tiny", script(seed=1), CARD)
    assert load_bundle("tiny", tmp_path).card.sha256 != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.pt"]


def test_names_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("given", "first", "second")]
    monkeypatch.setenv("BEAMSIEVE_MODELS", f"{places[1]}:{places[2]}")
    for place in reversed(places):
        saved = save_bundle(place, "tiny", script(), CARD)
        assert load_bundle("tiny", places[0]).path == saved
    assert load_bundle("tiny").path.parent == places[1]
    assert search_path(places[0])[:3] == tuple(places)
    assert available()["tiny"] == places[1] / "tiny.pt"


def test_an_unknown_name_is_refused_with_a_suggestion(saved: Path, tmp_path: Path) -> None:
    error = refused("tinny", tmp_path)
    assert error.reason == "unknown"
    assert "did you mean tiny?" in error.detail
    assert "BEAMSIEVE_MODELS" in error.detail


def test_an_unknown_path_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nothing.pt").reason == "unknown"


def test_expectations(saved: Path) -> None:
    bundle = load_bundle(saved)
    assert bundle.expect(task="hits", shape=(4, 6), classes=3) is bundle
    assert bundle.expect(shape=(1, 4, 6), classes=("0", "1", "2")) is bundle
    for reason, wanted in {"task": "particles", "shape": (6, 4), "classes": 5}.items():
        with pytest.raises(BundleError) as caught:
            bundle.expect(**{reason: wanted})  # type: ignore[arg-type]
        assert caught.value.reason == reason
    with pytest.raises(BundleError, match=r"4×6 pixels, needed is 8×8; its classes are 0, 1, 2, needed are a, b"):
        bundle.expect(shape=(8, 8), classes=("a", "b"))


def test_only_torchs_notice_is_silenced() -> None:
    with pytest.warns(DeprecationWarning, match="something else"), quiet_torchscript():
        warnings.warn("something else is deprecated", DeprecationWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="script"), quiet_torchscript():
        warnings.warn("`torch.jit.script` is deprecated", UserWarning, stacklevel=1)
