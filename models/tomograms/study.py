"""The method on simulated tomograms, from a seed: mine, mark clusters by their truth, segment others, score.

A person's marks are imitated: a cluster gets the group that at least half of its members in the *marking* tomograms are
of; all scores are of *test* tomograms, which neither network nor marks have seen. A row costs minutes, so it is written
to a file of its own as soon as it is known, named by what it was computed from: a run that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .cluster import K
from .codec import Codec
from .dog import DogOptions
from .labels import LabelOptions
from .mine import MineOptions, Miner
from .scene import Kind, SceneOptions
from .segment import Segmenter
from .segment_set import Marked, SetOptions, examples
from .segment_train import Options as TrainOptions
from .segment_train import train_segments
from .simulator import TEST, VALIDATION, simulate
from .study_marks import Marks, Seen, marked, marked_of, true_examples
from .study_report import keep_picture
from .study_scores import labels_score, mining_scores, ribosome_scores, voxel_scores
from .truth import GROUPS
from .volume import ArrayVolume, Shape

Labels = npt.NDArray[np.uint8]
Progress: TypeAlias = Callable[[str, int, int], None]
Row: TypeAlias = dict[str, Any]
MARKING = VALIDATION + 500
"""First seed of the tomograms whose clusters are marked: not those that training validates on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What a row simulates and how much it trains.

    ``snr``: see ``SceneOptions``. ``posed``: sub-volumes turned into their poses. ``marking``, ``test``: tomograms;
    ``first``: number of the first test seed from ``TEST``. ``tuning``: test on validation seeds instead, for choices.
    ``shape``: voxels (z, y, x). ``unseen``: maps of macromolecules that only test tomograms have. ``threshold``: of
    picks. ``k``: clusters. ``windows``, ``edge``, ``minutes``, ``epochs``: of the segmentation's training. ``oracle``:
    train it on true labels instead of weak ones: what labels cost. ``start``: a bundle it begins with. ``segment``:
    False leaves it out, and all scores of voxels. ``seed``: of clustering and training.
    """

    snr: float = 0.1
    posed: bool = False
    marking: int = 6
    test: int = 3
    first: int = 0
    tuning: bool = False
    shape: Shape = (64, 192, 192)
    unseen: tuple[str, ...] = ()
    threshold: float = 2.5
    k: int = K
    windows: int = 300
    edge: int = 40
    minutes: float = 4.0
    epochs: int = 100
    oracle: bool = False
    start: str = ""
    segment: bool = True
    seed: int = 1

    def scene(self, changed: Mapping[str, Any], *, test: bool) -> SceneOptions:
        """What is simulated; ``changed``: instead of what ``SceneOptions`` says."""
        scene = replace(SceneOptions(shape=self.shape, snr=self.snr), **dict(changed))
        more = tuple(Kind(name) for name in self.unseen) if test else ()
        return replace(scene, kinds=(*scene.kinds, *more))


@dataclass(frozen=True, slots=True)
class Study:
    """A folder of rows, and what they are computed with.

    ``out``: for rows, networks, pictures' data. ``straight``, ``posed``: codecs for sub-volumes as they lie and as they
    are turned into their poses. ``scene``: fields of ``SceneOptions`` that are not as ``StudyOptions`` has them.
    """

    out: Path
    straight: Codec
    posed: Codec
    progress: Progress
    scene: Mapping[str, Any] | None = None

    def row(self, name: str, options: StudyOptions) -> Row:
        """Scores of a row, computed now or in an earlier run of the same options. Raises ``OSError``."""
        codec = self.posed if options.posed else self.straight
        identity = {"options": asdict(options), "codec": codec.sha256, "scene": repr(self.scene)}
        text = json.dumps(identity, sort_keys=True).encode()
        path = self.out / "rows" / f"{name}-{hashlib.sha256(text).hexdigest()[:12]}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            found = {**_Run(self, name, options, codec, path.with_suffix("")).scores(), **identity}
            part = path.with_suffix(".inprogress")
            part.write_text(json.dumps(found, indent=1))
            part.replace(path)
        row: Row = json.loads(path.read_text())
        return row


@dataclass(frozen=True, slots=True)
class _Run:
    """One row being computed. ``base``: path of what it leaves behind, without an ending."""

    study: Study
    name: str
    options: StudyOptions
    codec: Codec
    base: Path

    def scores(self) -> Row:
        o, began = self.options, time.monotonic()
        marking = [self._seen(MARKING + number, "marking", number, o.marking) for number in range(o.marking)]
        marks = marked(marking, o.k, o.seed)
        given = [marked_of(seen, marks, number) for number, seen in enumerate(marking)]
        pairs = [(seen.made, one) for seen, one in zip(marking, given, strict=True)]
        labels = labels_score(pairs, self.codec, LabelOptions())
        segmenter = self._segmenter(marking, given) if o.segment else None
        first = (VALIDATION + 800 if o.tuning else TEST) + o.first
        each = []
        for number in range(o.test):
            seen = self._seen(first + number, "test", number, o.test)
            each.append(self._scored(seen, marks, segmenter, keep=number == 0))
        counts = {name: int((marks.values == value).sum()) for value, name in enumerate(GROUPS, 1)}
        counts["ribosome-like"] = int(marks.ribosomes.sum())
        return {
            "row": self.name,
            "codec_name": self.codec.name,
            "clusters": len(marks.values),
            "marked": counts,
            "marking_picks": sum(len(seen.mined) for seen in marking),
            "weak_labels": labels,
            "tomograms": each,
            "shown": str(self.base.with_suffix(".npz").relative_to(self.study.out)),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _seen(self, seed: int, what: str, number: int, of: int) -> Seen:
        self.study.progress(f"{self.name}: {what}", number, of)
        made = simulate(seed, self.options.scene(self.study.scene or {}, test=what == "test"))
        options = MineOptions(dog=DogOptions(threshold=self.options.threshold), posed=self.options.posed)
        mined = Miner(self.codec, options).mine(ArrayVolume(made.data, made.voxel_a))
        self.study.progress(f"{self.name}: {what}", number + 1, of)
        return Seen.of(made, mined)

    def _segmenter(self, marking: list[Seen], given: list[Marked]) -> Segmenter:
        """Trained, or gone on with, in a folder of its own."""
        o, folder = self.options, self.base.with_name(self.base.name + "-segments")
        done = folder / "segments.pt"
        if not done.exists():
            chosen_so = SetOptions(most=o.windows, edge=o.edge, seed=o.seed)
            data = true_examples(marking, chosen_so) if o.oracle else examples(given, len(given), self.codec, chosen_so)
            how = TrainOptions(folder, epochs=o.epochs, minutes=o.minutes, edge=self.codec.edge, seed=o.seed)
            how = replace(how, resume=True, start=o.start)
            made = train_segments(data, ("background", *GROUPS), how, progress=self._told)
            assert made is not None
            done = made
        return Segmenter(done)

    def _scored(self, seen: Seen, marks: Marks, segmenter: Segmenter | None, *, keep: bool) -> Row:
        values, edge = marks.of(seen.mined), self.codec.edge
        found: Row = {"seed": seen.made.seed, **mining_scores(seen.made, seen.mined, seen.truth, values, edge)}
        found["ribosomes"] = ribosome_scores(seen.made, seen.mined, marks.like_ribosomes(seen.mined))
        seconds, labels = dict(seen.mined.seconds), np.zeros_like(seen.made.labels)
        if segmenter is not None:
            began = time.monotonic()
            labels = np.concatenate([slab.labels for slab in segmenter.segment(seen.mined.working)])
            seconds["segment"] = time.monotonic() - began
            found["voxels"] = voxel_scores(seen.made, labels, seen.mined.xyz[values > 0], edge)
        if keep:
            keep_picture(self.base.with_suffix(".npz"), seen.made, labels)
        return {**found, "seconds": seconds}

    def _told(self, what: str, done: int, of: int) -> None:
        self.study.progress(f"{self.name}: {what}", done, of)
