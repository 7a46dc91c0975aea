"""Sub-volumes that ``beamsieve train tomograms`` trains on: of tomograms, of mined sessions, of simulated tomograms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...models.tomograms.dog import DogOptions
from ...models.tomograms.nets import checked_edge
from ...models.tomograms.practice import PracticeOptions, Sample, simulated_sample, together, tomogram_sample
from ...models.tomograms.recipes import Options
from ...models.tomograms.told import Progress, Stop
from ..formats.volumes import open_volume
from ..sinks.tomograms.places import RECORDS, records_below
from ..sinks.tomograms.record import read

CHECK_SEED = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What to train on, what to tell the scores of, and the options, which a session's sub-volumes may have changed."""

    sample: Sample
    options: Options
    check: Sample | None = None


def gathered(
    paths: list[Path],
    simulated: tuple[int, int, int],
    options: Options,
    picking: dict[str, Any],
    bright: bool,
    progress: Progress,
    stop: Stop,
) -> Gathered:
    """The sub-volumes of ``paths``, or of so many tomograms simulated from the seed that comes first, some to check.

    Raises ``ValueError`` for options that cannot be, ``BadData``, ``told.Stopped``.
    """
    wanted = _wanted(options, picking)
    count, first, check = simulated
    if count:
        if first + count > CHECK_SEED:
            raise ValueError(f"--first {first}, --simulated {count}: seeds of {CHECK_SEED} and above are to choose by")
        sample = simulated_sample(replace(wanted, tomograms=count, seed=first), progress, stop)
        held = replace(wanted, tomograms=check, seed=CHECK_SEED)
        return Gathered(sample, options, simulated_sample(held, progress, stop) if check else None)
    parts = [part for path in paths for part in _of_path(path, wanted, options, bright, progress, stop)]
    return Gathered(_most(together([part for part in parts if len(part)]), picking["most"], options.seed), options)


def _most(sample: Sample, most: int, seed: int) -> Sample:
    """At most so many of them, chosen at random from all tomograms."""
    if len(sample) <= most:
        return sample
    rows = np.sort(np.random.default_rng([seed, 5]).choice(len(sample), most, replace=False))
    return Sample(sample.boxes[rows], sample.group[rows], source=sample.source)


def _wanted(options: Options, picking: dict[str, Any]) -> PracticeOptions:
    dog = DogOptions() if picking["threshold"] is None else DogOptions(threshold=picking["threshold"])
    edge = checked_edge(picking["edge"] or PracticeOptions().edge)
    return PracticeOptions(
        snr=picking["snr"], posed=options.posed, most=picking["most"], edge=edge, voxel_a=options.voxel_a, dog=dog
    )


def _of_path(
    path: Path, wanted: PracticeOptions, options: Options, bright: bool, progress: Progress, stop: Stop
) -> Iterator[Sample]:
    if path.is_dir():
        yield from _of_session(path, wanted)
        return
    with open_volume(path) as volume:

        def said(what: str, done: int, of: int) -> None:
            progress(f"{path.name} {what}", done, of)

        yield tomogram_sample(volume, wanted, bright=bright, progress=said, stop=stop, threads=options.threads or 2)


def _of_session(directory: Path, wanted: PracticeOptions) -> Iterator[Sample]:
    """What a session kept, a tomogram each. Raises ``ValueError`` where it is of another kind than is wanted."""
    records = records_below(directory)
    if not records:
        raise ValueError(f"{directory}: holds no mined tomograms ({directory / RECORDS}/*.h5); name a session's folder")
    found = 0
    for path in records:
        one = read(path, kept=True, slices=False, codes=False)
        if one.kept is None or not len(one.kept):
            continue
        has = (one.edge, one.posed, round(one.working_voxel_a, 3))
        if has != (wanted.edge, wanted.posed, round(wanted.voxel_a, 3)):
            how = "posed" if one.posed else "not posed"
            raise ValueError(
                f"{path}: its sub-volumes have an edge of {one.edge} voxels of {one.working_voxel_a:g} Å, {how}; "
                "give --edge, --voxel, --posed or --not-posed to match"
            )
        found += 1
        boxes = one.kept.boxes
        yield Sample(boxes, np.zeros(len(boxes), np.int64), source="sub-volumes that a session kept")
    if not found:
        raise ValueError(
            f"{directory}: its tomograms keep no sub-volumes (clusters.keep_per_tomogram was 0); give the "
            "tomograms themselves"
        )
