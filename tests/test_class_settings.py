"""The settings of 2-D classes: when they are on, and what is said where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from beamsieve.stream.beamlines.class_settings import ClassSettings, is_on
from beamsieve.stream.beamlines.cryoem_picks import CryoemPicks, build
from beamsieve.stream.flow.settings import ConfigError, load
from beamsieve.tests.class_sessions import blur_bundle

BASE = {
    "beamline": "cryoem_picks",
    "source": {"kind": "folder", "directory": "in"},
    "model": {"bundle": "particles-ribosome"},
    "files": {"directory": "out", "min_free_gb": 0},
    "service": {"port": 0, "page": False},
}


def daemon(folder: Path, classes: dict[str, Any] | None, **files: Any) -> Any:
    settings = {**BASE, "files": {**BASE["files"], **files}}  # type: ignore[dict-item]
    if classes is not None:
        settings["classes"] = classes
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return build(*load(path, CryoemPicks))


def mistakes(folder: Path, classes: dict[str, Any], **files: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        daemon(folder, classes, **files)
    return error.value.mistakes


def test_classes_are_on_where_particles_are_kept() -> None:
    assert is_on(ClassSettings(), keeps=True)
    assert not is_on(ClassSettings(), keeps=False)
    assert not is_on(ClassSettings(on=False), keeps=True)
    assert is_on(ClassSettings(on=True), keeps=True)


def test_a_daemon_with_classes_and_one_without(tmp_path: Path) -> None:
    blur_bundle(tmp_path)
    made = daemon(tmp_path, {"bundle": "./blur.pt"})
    assert made.classes is not None
    assert made.pipeline.metrics.classed is not None
    made.close()
    assert not (tmp_path / "out").exists(), "a check writes nothing"
    off = daemon(tmp_path, {"on": False, "bundle": "no-such-bundle"})
    assert off.classes is None
    assert off.pipeline.metrics.classed is None
    off.close()
    daemon(tmp_path, None, particles={"keep": False}).close()


def test_the_switch_is_a_word_in_yaml_where_on_means_true(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    for text, expected in (("on: false\nnumber: 4\n", False), ("on: on", True), ("'on': no", False)):
        path.write_text(text)
        settings, where = load(path, ClassSettings)
        assert settings.on is expected
        assert where("on").startswith(f"{path}:1: on")


def test_the_bundle_that_ships_is_the_default(tmp_path: Path) -> None:
    made = daemon(tmp_path, None)
    assert made.classes is not None
    made.close()


def test_what_cannot_be_is_said_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, {"bundle": "classes2d-generic"})
    assert ":14: classes.bundle: no bundle named classes2d-generic" in told
    (told,) = mistakes(tmp_path, {"bundle": "particles-ribosome"})
    assert "classes.bundle" in told
    assert "its task is particles, needed is classes2d" in told
    (told,) = mistakes(tmp_path, {"on": True}, particles={"keep": False})
    assert "classes.on: particles are not kept" in told
    assert "set files.particles.keep: true" in told
    blur_bundle(tmp_path)
    (told,) = mistakes(tmp_path, {"bundle": "./blur.pt", "device": "cuda:9"})
    assert "classes.device" in told
    (told,) = mistakes(tmp_path, {"nummber": 3})
    assert "did you mean number?" in told
    (told,) = mistakes(tmp_path, {"growth": 1.0})
    assert "classes.growth" in told


def test_mistakes_of_the_picker_and_of_the_classes_are_told_together(tmp_path: Path) -> None:
    settings = {**BASE, "model": {"bundle": "nothing"}, "classes": {"bundle": "neither"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        build(*load(tmp_path / "x.yaml", CryoemPicks))
    assert len(error.value.mistakes) == 2
