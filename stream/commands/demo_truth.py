"""What is true of the demo's tomograms: the class of sub-volumes and voxels, and the particles there are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.volumes import open_volume
from ..sinks.tomograms.marks import GroupsFile
from ..sinks.tomograms.mined import LabelFiles, MinedTomogram
from ..sinks.tomograms.places import records_below
from ..sinks.tomograms.record import read

Labels = npt.NDArray[np.uint8]
#: A cluster is marked where at least this share of its members is of one group.
HALF = 0.5
#: Fewer members say nothing.
LEAST = 3


def records(mined: Path) -> list[MinedTomogram]:
    """All records of the session."""
    from ..flow.frame import BadData

    found = []
    for path in records_below(mined):
        try:
            found.append(read(path, slices=False, codes=False))
        except BadData:
            continue
    return found


def mark(mined: Path, truth: Path) -> list[dict[str, Any]]:
    """Mark clusters by the truth of their members; what was marked: ``name``, ``kind``, ``clusters``."""
    from ...models.tomograms.truth import GROUPS, KINDS, groups_near

    names = list(GROUPS)
    counts: dict[int, npt.NDArray[np.int64]] = {}
    for one in records(mined):
        seen = np.where(hidden_of(truth, one.name), np.uint8(0), labels_of(truth, one.name))
        value = groups_near(seen, one.picked.xyz)
        for number, at in zip(one.picked.cluster.tolist(), value.tolist(), strict=True):
            counts.setdefault(number, np.zeros(len(names) + 1, np.int64))[at] += 1
    counts.pop(0, None)
    told: list[dict[str, Any]] = []
    for at, name in enumerate(names, 1):
        mine = [c for c, n in counts.items() if n.sum() >= LEAST and n[at] >= HALF * n.sum() and n[at] == n.max()]
        for number in mine:
            # A tie is the first one's.
            del counts[number]
        if mine:
            told.append({"name": name, "kind": KINDS[name], "clusters": sorted(mine)})

    def change(groups: Any) -> Any:
        for one in told:
            groups = groups.mark(one["name"], one["clusters"], kind=one["kind"])
        return groups

    if told:
        GroupsFile(mined).change(change)
    return told


def compare(mined: Path, truth: Path) -> dict[str, dict[str, Any]]:
    """By group, of the tomograms whose truth is in ``truth``: Dice of voxels, and what is counted beside what is there.

    ``dice``: of all voxels of these tomograms but of membranes that no tilt shows; None where none was segmented.
    ``counted``: sub-volumes of the group; ``right``: those where the truth is of it; ``true``: particles there are (0
    for surfaces), and ``found`` those with a sub-volume of the group within their radius.
    """
    from ...models.tomograms.truth import GROUPS, groups_near, match

    found: dict[str, dict[str, Any]] = {}
    overlaps: dict[str, npt.NDArray[np.int64]] = {}
    for one in records(mined):
        if not one.name.startswith(f"{truth.name}/"):
            continue
        stem = Path(one.name).stem
        true, hidden = labels_of(truth, one.name), hidden_of(truth, one.name)
        value = groups_near(np.where(hidden, np.uint8(0), true), one.picked.xyz)
        places = particles(truth / f"{stem}_particles.csv", one.voxel_a)
        for at, name in enumerate(one.classes, 1):
            group = list(GROUPS).index(name) + 1
            row = found.setdefault(name, {"dice": None, "counted": 0, "right": 0, "true": 0, "found": 0})
            mine = one.picked.label == at
            row["counted"] += int(mine.sum())
            row["right"] += int((value[mine] == group).sum())
            xyz, radius = places.get(name, (np.zeros((0, 3), np.float32), np.zeros(0, np.float32)))
            row["true"] += len(xyz)
            row["found"] += int(match(one.picked.xyz[mine], xyz, radius).true.sum())
            files = one.segmentation
            if isinstance(files, LabelFiles) and name in files.classes:
                wanted = files.classes.index(name) + 1
                said, there = volume(files.labels)[~hidden] == wanted, true[~hidden] == group
                both = np.array([(said & there).sum(), said.sum() + there.sum()])
                overlaps[name] = overlaps.get(name, np.zeros(2, np.int64)) + both
    for name, (both, sizes) in overlaps.items():
        found[name]["dice"] = float(2 * both / max(1, sizes))
    return found


def labels_of(truth: Path, name: str) -> Labels:
    """The true group of each voxel of a tomogram."""
    from ...models.tomograms.truth import grouped

    classes = json.loads((truth / "classes.json").read_text(encoding="utf-8"))
    names = [classes[str(value)] for value in range(len(classes))]
    return grouped(volume(truth / f"{Path(name).stem}_labels.mrc"), names)


def hidden_of(truth: Path, name: str) -> npt.NDArray[np.bool_]:
    """Voxels of membranes that no tilt shows."""
    return volume(truth / f"{Path(name).stem}_hidden.mrc") > 0


def volume(path: Path) -> Labels:
    """A volume of labels as a whole: the demo's are small."""
    with open_volume(path, voxel_a=10.0) as file:
        return file.read((0, 0, 0), file.shape).astype(np.uint8)


def particles(path: Path, voxel_a: float) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Positions (n, 3) in voxels and radii (n,) in voxels of the true particles, by group."""
    from ...models.tomograms.truth import GROUPS

    group = {member: name for name, members in GROUPS.items() for member in members}
    rows: dict[str, list[tuple[float, ...]]] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            place = tuple(float(row[axis]) for axis in ("x", "y", "z"))
            rows.setdefault(group[row["class"]], []).append((*place, float(row["diameter_a"]) / 2 / voxel_a))
    arrays = {name: np.array(many, np.float32) for name, many in rows.items()}
    return {name: (many[:, :3], many[:, 3]) for name, many in arrays.items()}
