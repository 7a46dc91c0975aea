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

from .boxes import cut
from .cluster import Centres, K, assign, cluster
from .codec import Codec
from .dog import DogOptions
from .labels import LabelOptions
from .mine import Mined, MineOptions, Miner
from .pose import Poses
from .scene import Kind, SceneOptions
from .segment import Segmenter
from .segment_set import Examples, Marked, SetOptions, chosen, examples
from .segment_train import Options as TrainOptions
from .segment_train import train_segments
from .simulator import TEST, VALIDATION, Simulated, simulate
from .study_report import keep_picture
from .study_scores import labels_score, mining_scores, voxel_scores
from .truth import GROUPS, groups_at, truth_of
from .volume import ArrayVolume, Floats, Shape

Labels = npt.NDArray[np.uint8]
Progress: TypeAlias = Callable[[str, int, int], None]
Row: TypeAlias = dict[str, Any]
SHARE = 0.5
"""Of a cluster's members that must be of a group for its mark."""
MARKING = VALIDATION + 500
"""First seed of the tomograms whose clusters are marked: not those that training validates on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What a row simulates and how much it trains.

    ``snr``: see ``SceneOptions``. ``posed``: sub-volumes turned into their poses. ``marking``, ``test``: tomograms;
    ``first``: number of the first test seed from ``TEST``. ``tuning``: test on validation seeds instead, for choices.
    ``shape``: voxels (z, y, x). ``unseen``: maps of macromolecules that only test tomograms have. ``threshold``: of
    picks. ``k``: clusters. ``windows``, ``edge``, ``minutes``, ``epochs``: of the segmentation's training. ``oracle``:
    train it on true labels instead of weak ones: what labels cost. ``seed``: of clustering and training.
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
    seed: int = 1

    def scene(self, changed: Mapping[str, Any], *, test: bool) -> SceneOptions:
        """What is simulated; ``changed``: instead of what ``SceneOptions`` says."""
        scene = replace(SceneOptions(shape=self.shape, snr=self.snr), **dict(changed))
        more = tuple(Kind(name) for name in self.unseen) if test else ()
        return replace(scene, kinds=(*scene.kinds, *more))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A simulated tomogram and what was mined of it; ``truth``: uint8 (n,), group of each pick."""

    made: Simulated
    mined: Mined
    truth: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Clusters and the group (label value, 0 for none) of each, uint8 (k,)."""

    centres: Centres
    values: Labels

    def of(self, mined: Mined) -> Labels:
        """The group of each pick, by its nearest centre."""
        rows, _ = assign(mined.codes, self.centres)
        found: Labels = np.where(rows >= 0, self.values[rows], np.uint8(0)).astype(np.uint8)
        return found


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
        marks = marked(marking, o)
        given = [marked_of(seen, marks, number) for number, seen in enumerate(marking)]
        pairs = [(seen.made, one) for seen, one in zip(marking, given, strict=True)]
        labels = labels_score(pairs, self.codec, LabelOptions())
        how = SetOptions(most=o.windows, edge=o.edge, seed=o.seed)
        data = true_examples(marking, o) if o.oracle else examples(given, len(given), self.codec, how)
        segmenter = self._segmenter(data)
        first = (VALIDATION + 800 if o.tuning else TEST) + o.first
        each = []
        for number in range(o.test):
            seen = self._seen(first + number, "test", number, o.test)
            each.append(self._scored(seen, marks, segmenter, keep=number == 0))
        counts = {name: int((marks.values == value).sum()) for value, name in enumerate(GROUPS, 1)}
        return {
            "row": self.name,
            "codec_name": self.codec.name,
            "clusters": len(marks.values),
            "marked": counts,
            "marking_picks": sum(len(seen.mined) for seen in marking),
            "windows": len(data),
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
        return Seen(made, mined, groups_at(made, mined.xyz))

    def _segmenter(self, data: Examples) -> Segmenter:
        """Trained, or gone on with, in a folder of its own."""
        o, folder = self.options, self.base.with_name(self.base.name + "-segments")
        done = folder / "segments.pt"
        if not done.exists():
            how = TrainOptions(folder, epochs=o.epochs, minutes=o.minutes, edge=self.codec.edge, seed=o.seed)
            made = train_segments(data, ("background", *GROUPS), replace(how, resume=True), progress=self._told)
            assert made is not None
            done = made
        return Segmenter(done)

    def _scored(self, seen: Seen, marks: Marks, segmenter: Segmenter, *, keep: bool) -> Row:
        values = marks.of(seen.mined)
        began = time.monotonic()
        slabs = list(segmenter.segment(seen.mined.working))
        labels = np.concatenate([slab.labels for slab in slabs])
        seconds = time.monotonic() - began
        if keep:
            keep_picture(self.base.with_suffix(".npz"), seen.made, labels)
        kept = seen.mined.xyz[values > 0]
        return {
            "seed": seen.made.seed,
            **mining_scores(seen.made, seen.mined, seen.truth, values, self.codec.edge),
            "voxels": voxel_scores(seen.made, labels, kept, self.codec.edge),
            "seconds": {**seen.mined.seconds, "segment": seconds},
        }

    def _told(self, what: str, done: int, of: int) -> None:
        self.study.progress(f"{self.name}: {what}", done, of)


def marked(marking: list[Seen], options: StudyOptions) -> Marks:
    """Clusters of all codes of the marking tomograms, each marked by what most of its members are."""
    codes = np.concatenate([seen.mined.codes for seen in marking])
    truth = np.concatenate([seen.truth for seen in marking])
    centres = cluster(codes, k=options.k, seed=options.seed)
    rows, _ = assign(codes, centres)
    counts = np.zeros((len(centres.codes), len(GROUPS) + 1), np.int64)
    np.add.at(counts, (rows[rows >= 0], truth[rows >= 0]), 1)
    best = 1 + counts[:, 1:].argmax(1)
    enough = counts[np.arange(len(counts)), best] >= SHARE * np.maximum(counts.sum(1), 1)
    return Marks(centres, np.where(enough, best, 0).astype(np.uint8))


def marked_of(seen: Seen, marks: Marks, number: int) -> Marked:
    """A marking tomogram as a segmentation's training takes it."""
    mined = seen.mined
    rows, _ = assign(mined.codes, marks.centres)
    poses = Poses(mined.rotation, mined.shift) if mined.posed else None
    places: Floats = mined.working.to_work(mined.xyz)
    centres = marks.centres.codes[rows]
    return Marked(str(number), places, mined.codes, centres, marks.of(mined), poses, mined.working)


def true_examples(marking: list[Seen], options: StudyOptions) -> Examples:
    """Windows about picks, as many of each group as there can be, with true labels but for what no tilt shows."""
    rng, each = np.random.default_rng(options.seed), -(-options.windows // len(marking))
    how = SetOptions(most=options.windows, edge=options.edge)
    windows, labels, numbers = [], [], []
    for number, seen in enumerate(marking):
        truth = ArrayVolume(truth_of(seen.made, hidden=False), seen.made.voxel_a)
        rows = chosen(seen.truth, np.arange(len(seen.truth)), each, how, rng)
        middle = np.rint(seen.mined.xyz[rows]).astype(int) + rng.integers(-8, 9, (len(rows), 3))
        for low in (middle - options.edge // 2)[:, ::-1].tolist():
            size = (options.edge,) * 3
            windows.append(cut(seen.mined.working, tuple(low), size))
            labels.append(cut(truth, tuple(low), size).astype(np.uint8))
            numbers.append(number)
    return Examples(np.stack(windows), np.stack(labels), np.array(numbers, np.int32))
