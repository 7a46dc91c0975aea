"""What a picker was trained on, remembered beside its bundle (``micrographs.json``), so that more can be added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.particles.candidates import Labelled
from ...models.particles.dataset import check, split
from ..flow.frame import BadData
from ..flow.settings import ConfigError
from .labelled import Reading, load, read_labelled
from .run import write_json

if TYPE_CHECKING:
    from ...models.particles.maps import Volume
    from ...models.particles.practice import Practice
    from ...models.particles.recipes import Progress

FILE = "micrographs.json"
_CENTRES = ("x", "y", "wrong_x", "wrong_y")


@dataclass(frozen=True, slots=True)
class Files:
    """Micrographs in files. ``entries``: of each its path, name, pixel size (Å) and centres, as JSON holds them."""

    entries: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, paths: Sequence[Path], how: Reading) -> Files:
        """Those of ``read_labelled``, which see for what it raises."""
        found = read_labelled(paths, how)
        told = [
            {n: getattr(one, n).astype(float).round(3).tolist() for n in _CENTRES} | {"pixel_a": one.pixel_a}
            for one in found
        ]
        named = zip(paths, found, told, strict=True)
        return cls(tuple({"path": str(path.resolve()), "name": one.name, **rest} for path, one, rest in named))

    def labelled(self, progress: Progress) -> list[Labelled]:
        """As training takes them; images are read when they are asked for. Raises ``BadData`` for one that is gone."""
        found = []
        for number, one in enumerate(self.entries, 1):
            path = Path(one["path"])
            if not path.exists():
                raise BadData("vanished", f"{path}: is no longer there, and was trained on; put it back")
            centres = [np.array(one[n], np.float32) for n in _CENTRES]
            found.append(Labelled(str(one["name"]), partial(load, path), float(one["pixel_a"]), *centres))
            progress("find micrographs", number, len(self.entries))
        return found

    def to_json(self) -> dict[str, Any]:
        """What ``TrainingSet.parse`` reads."""
        return {"files": list(self.entries)}


@dataclass(frozen=True, slots=True)
class Simulation:
    """Simulated micrographs; see ``Practice``. ``maps``: names or paths, with @ÅNGSTRÖM per voxel where need be."""

    conditions: tuple[str, ...]
    snrs: tuple[float, ...]
    maps: tuple[str, ...]
    count: int
    seed: int
    binned: int = 1

    def check(self) -> None:
        """Raises ``ValueError`` for conditions and ratios that cannot be, ``OSError`` for a map that cannot be read."""
        from ...models.particles.practice import check

        check(self.conditions, self.snrs)
        self.practice()

    def practice(self) -> Practice:
        """With the maps loaded."""
        from ...models.particles.practice import Practice

        return Practice(self.conditions, self.snrs, tuple(map(volume, self.maps)), self.count, self.seed, self.binned)

    def labelled(self, progress: Progress) -> list[Labelled]:
        """Simulate them."""
        from ...models.particles.practice import micrographs

        return micrographs(self.practice(), progress)

    def to_json(self) -> dict[str, Any]:
        """What ``TrainingSet.parse`` reads."""
        told = {"conditions": self.conditions, "snrs": self.snrs, "maps": self.maps}
        return {"simulated": {**told, "count": self.count, "seed": self.seed, "binned": self.binned}}


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Where the micrographs come from, and the names of those that validate (``held``)."""

    sources: tuple[Files | Simulation, ...] = ()
    held: tuple[str, ...] = ()

    @classmethod
    def of_bundle(cls, bundle: str) -> TrainingSet:
        """What the bundle was trained on; nothing where that is not remembered beside it. Raises ``ConfigError``."""
        path = Path(bundle).with_name(FILE)
        if not path.exists():
            return cls()
        try:
            return cls.parse(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError([f"{path}: cannot be used ({error}); train again without --add"]) from None

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> TrainingSet:
        """The inverse of ``to_json``. Raises ``KeyError``, ``TypeError``, ``ValueError``."""
        sources: list[Files | Simulation] = []
        for one in told["sources"]:
            if "files" in one:
                sources.append(Files(tuple(one["files"])))
            else:
                s = one["simulated"]
                lists = (tuple(s["conditions"]), tuple(map(float, s["snrs"])), tuple(s["maps"]))
                sources.append(Simulation(*lists, int(s["count"]), int(s["seed"]), int(s["binned"])))
        return cls(tuple(sources), tuple(map(str, told["held"])))

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON can hold."""
        return {"sources": [one.to_json() for one in self.sources], "held": list(self.held)}

    def write(self, out: Path) -> None:
        """Remember it in ``out``; where that is impossible, say so and exit with 1."""
        write_json(out / FILE, self.to_json())

    def labelled(self, progress: Progress) -> list[Labelled]:
        """All micrographs, as training takes them."""
        return [one for source in self.sources for one in source.labelled(progress)]

    def joined(self, more: Files | Simulation, old: Sequence[Labelled], new: Sequence[Labelled]) -> TrainingSet:
        """With ``more`` added. Raises ``ConfigError`` for micrographs that are there already.

        ``old``, ``new``: the micrographs of this set, and of ``more``.
        """
        twice = sorted({m.name for m in old} & {m.name for m in new})
        if twice:
            raise ConfigError(
                [f"{', '.join(twice)}: trained on before; corrections come from micrographs that were not"]
            )
        return replace(self, sources=(*self.sources, more))

    def holding(self, new: Sequence[Labelled], share: float, seed: int) -> TrainingSet:
        """With about ``share`` of the ``new`` micrographs held back beside those that were.

        Those that validated before go on validating: a network that has seen them could not be judged by them. Raises
        ``ValueError`` where there are too few to begin with; with validating ones there, a few new ones all train.
        """
        if not self.held:
            check(new)
        if self.held and len(new) * share < 1:
            return self
        _, held = split(new, share, seed)
        return replace(self, held=(*self.held, *(m.name for m in held)))


def volume(text: str) -> Volume:
    """The map of ``NAME`` or ``FILE`` or ``FILE@ÅNGSTRÖM`` per voxel. Raises ``ConfigError``, ``OSError``."""
    from ...models.particles.maps import load_map

    path, at, voxel = text.rpartition("@")
    try:
        return load_map(path, voxel_a=float(voxel)) if at else load_map(text)
    except ValueError as error:
        raise ConfigError([f"--map {text}: {error}"]) from None
