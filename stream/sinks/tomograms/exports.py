"""A tomogram's files for other programs: EMAN2's info, copick's picks by class, a CSV; and its picture."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...flow.frame import BadData
from ...formats import copick, eman_boxes3d
from ...formats.tomogram_names import series_of
from ..picks.files import write_whole
from .labels import planes
from .mined import UNMARKED, LabelFiles, MinedTomogram
from .pictures import draw
from .places import Places
from .settings import TomogramFiles

CSV = "x,y,z,score,error,cluster,class\n"


def export(found: MinedTomogram, stem: str, settings: TomogramFiles, places: Places) -> None:
    """Write every file of one tomogram that the settings ask for, in place of what is there. Raises ``OSError``."""
    if "eman" in settings.formats:
        write_whole(places.of("eman", stem), _eman(found, places.of("eman", stem)))
    if "csv" in settings.formats:
        write_whole(places.of("csv", stem), csv(found).encode())
    if "copick" in settings.formats:
        _copick(found, stem, settings, places)
    if settings.pictures and found.slices is not None:
        write_whole(places.of("picture", stem), picture(found))


def picture(found: MinedTomogram) -> bytes:
    """PNG, with labels where they are there and can be read."""
    files = found.segmentation
    if not isinstance(files, LabelFiles) or found.slices is None:
        return draw(found)
    with suppress(BadData):
        # A class may have another number now, or none: then its voxels are not shown.
        numbers = np.zeros(256, np.uint8)
        for at, name in enumerate(files.classes, 1):
            numbers[at] = 1 + found.classes.index(name) if name in found.classes else 0
        xy, xz, yz = (numbers[plane] for plane in planes(files, found.slices.at, found.slices.factor))
        return draw(found, (xy, xz, yz), dict(files.fractions))
    return draw(found)


def run_name(found: MinedTomogram, stem: str, settings: TomogramFiles) -> str:
    """What RELION and copick know the tomogram by."""
    return found.run or (series_of(found.name) if settings.names == "series" else Path(stem).name)


def about(found: MinedTomogram) -> dict[str, Any]:
    """What every export says of the tomogram beside its sub-volumes."""
    return {
        "tomogram": found.name,
        "shape_zyx": list(found.shape),
        "voxel_a": found.voxel_a,
        "flip": found.flip,
        "handedness": found.hand,
        "network_sha256": found.network_sha256,
    }


def note(found: MinedTomogram) -> str:
    """The same in a line."""
    x, y, z = found.shape[::-1]
    return f"{found.name}, {x} x {y} x {z} voxels of {found.voxel_a:.6g} A, flip {found.flip}, handedness {found.hand}"


def csv(found: MinedTomogram) -> str:
    """A line per sub-volume: voxels of the file, the middle of the first is 0; ``class`` is empty where it has none."""
    names = ("", *(_quoted(name) for name in found.classes))
    p = found.picked
    rows = zip(p.xyz, p.score, p.error, p.cluster, p.label, strict=True)
    return CSV + "".join(
        f"{x:.3f},{y:.3f},{z:.3f},{score:.5g},{error:.5g},{cluster},{names[label]}\n"
        for (x, y, z), score, error, cluster, label in rows
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(sign in name for sign in ',"\n\r') else name


def _eman(found: MinedTomogram, path: Path) -> bytes:
    p = found.picked
    return eman_boxes3d.encode(
        p.xyz,
        p.score,
        p.label,
        shape=found.shape,
        voxel_a=found.voxel_a,
        classes=found.classes,
        box_a=found.edge * found.working_voxel_a,
        about=about(found),
        before=_before(path),
    )


def _before(path: Path) -> dict[str, Any] | None:
    """What an EMAN2 info file holds already; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _copick(found: MinedTomogram, stem: str, settings: TomogramFiles, places: Places) -> None:
    """A file for each class that has sub-volumes; those of classes that have none any more go."""
    run, p = run_name(found, stem, settings), found.picked
    folder = (places.copick / copick.place(run, UNMARKED)).parent
    written = set()
    for label, name in enumerate((UNMARKED, *found.classes)):
        chosen = np.flatnonzero(p.label == label)
        if len(chosen):
            path = places.copick / copick.place(run, name)
            said = about(found)
            content = copick.encode(
                p.xyz[chosen], p.score[chosen], run=run, name=name, voxel_a=found.voxel_a, about=said
            )
            write_whole(path, content)
            written.add(path)
    for path in set(folder.glob(f"{copick.USER}_{copick.SESSION}_*.json")) - written:
        with suppress(OSError):
            path.unlink()
