"""A wrong configuration: every mistake at once, with file, line, field and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from beamsieve.stream.flow.settings import ConfigError, Settings, load
from pydantic import Field, model_validator


class Dectris(Settings):
    kind: Literal["dectris"]
    endpoint: str = Field(description="ZeroMQ address of the detector")
    wait_ms: float = Field(5, gt=0, description="how long a batch waits")


class Folder(Settings):
    kind: Literal["folder"]
    path: str = "."

    @model_validator(mode="after")
    def _there(self) -> Folder:
        if self.path == "nowhere":
            raise ValueError("path: nowhere is no folder; name one")
        return self


class Daemon(Settings):
    source: Annotated[Dectris | Folder, Field(discriminator="kind")]
    batch: int = Field(64, ge=1, description="frames in a batch")
    title: str = ""


def mistakes(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "xfel.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, Daemon)
    return [line.replace(str(path), "xfel.yaml") for line in caught.value.mistakes]


def test_a_good_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("source: {kind: dectris, endpoint: 'tcp://a:1'}\nbatch: 3\n")
    settings, where = load(path, Daemon)
    assert settings.batch == 3
    assert where("source", "endpoint", "deeper") == f"{path}:1: source.endpoint.deeper: "
    assert where("batch") == f"{path}:2: batch: "


def test_all_mistakes_at_once_with_line_field_and_remedy(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "batch: 0\nsource:\n  kind: dectris\n  endpont: tcp://a:1\n  wait_ms: soon\ntitel: x\nnonsense_word: 1\n",
    )
    assert found == [
        "xfel.yaml:1: batch: input should be greater than or equal to 1 (given 0): frames in a batch",
        "xfel.yaml:2: source.endpoint: missing; add it: ZeroMQ address of the detector",
        "xfel.yaml:4: source.endpont: unknown; did you mean endpoint?",
        "xfel.yaml:5: source.wait_ms: input should be a valid number, unable to parse string as a number (given 'soon')"
        ": how long a batch waits",
        "xfel.yaml:6: titel: unknown; did you mean title?",
        "xfel.yaml:7: nonsense_word: unknown; known here: batch, source, title",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "source: {kind: dektris}",
            "xfel.yaml:1: source.kind: 'dektris' is not one of dectris, folder; did you mean dectris?",
        ),
        ("source: {kind: folder, path: nowhere}", "xfel.yaml:1: source: path: nowhere is no folder; name one"),
        ("source: {endpoint: x}", "xfel.yaml:1: source.kind: missing; one of dectris, folder"),
        ("batch: [", "xfel.yaml:1: not YAML: "),
        ("- a\n- b", "xfel.yaml:1: a list of settings is expected"),
        ("batch: 1\nbatch: 2\n", "xfel.yaml:2: batch: said twice, first in line 1"),
        ("", "xfel.yaml:1: source: missing; add it"),
        ("a: &a [*a]", "xfel.yaml:1: "),
    ],
)
def test_each_kind_of_mistake(tmp_path: Path, text: str, said: str) -> None:
    assert mistakes(tmp_path, text)[0].startswith(said)


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml", Daemon)
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bin.yaml", Daemon)
