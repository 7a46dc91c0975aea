"""The tables of a session on tomograms: for people, for RELION 5, and for copick."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...formats import copick, relion_tomo
from ..picks.files import write_whole
from .exports import note, run_name
from .mined import UNMARKED, LabelFiles, MinedTomogram
from .places import Places, file_name
from .rows import Row
from .settings import TomogramFiles

SUMMARY = "tomograms.csv"
_SAID = (
    "name",
    "sub_volumes",
    "voxel_a",
    "nx",
    "ny",
    "nz",
    "mode",
    "threshold",
    "error",
    "seconds",
    "clusters_version",
)


def write_tables(rows: Sequence[Row], settings: TomogramFiles, places: Places) -> list[Path]:
    """``tomograms.csv``, ``star/particles.star`` and one per class, ``copick/config.json``. Raises ``OSError``."""
    content = {places.directory / SUMMARY: summary(rows).encode()}
    if "star" in settings.formats:
        content |= _stars(rows, settings, places)
    if "copick" in settings.formats:
        content[places.copick / "config.json"] = _config(rows, places)
    for path, text in content.items():
        write_whole(path, text)
    # Of classes that are no more.
    for path in set(places.particles("").parent.glob("particles_*.star")) - set(content):
        with suppress(OSError):
            path.unlink()
    return list(content)


def classes_of(rows: Sequence[Row]) -> dict[str, str]:
    """Names of all classes in the session and their colours, in the order of their label values."""
    found: dict[str, str] = {}
    for row in rows:
        colours = (*row.found.colours, *("" for _ in row.found.classes))
        for name, colour in zip(row.found.classes, colours, strict=False):
            found[name] = found.get(name) or colour
    return found


def summary(rows: Sequence[Row]) -> str:
    """A line per tomogram: what it gave, by class, and what it cost."""
    classes = list(classes_of(rows))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shares = [f"voxels of {name}" for name in classes]
    writer.writerow([*_SAID, *classes, UNMARKED, *shares, "flip", "handedness", "flags", "network", "sha256", "path"])
    for row in rows:
        writer.writerow(_line(row.found, classes))
    return out.getvalue()


def _line(found: MinedTomogram, classes: Sequence[str]) -> list[object]:
    counts = found.counts
    shares = found.segmentation.fractions if isinstance(found.segmentation, LabelFiles) else {}
    errors = found.picked.error[np.isfinite(found.picked.error)]
    return [
        found.name,
        len(found.picked),
        f"{found.voxel_a:.6g}",
        *found.shape[::-1],
        found.mode,
        f"{found.threshold:g}",
        f"{errors.mean():.6g}" if len(errors) else "",
        f"{sum(found.seconds.values()):.3f}",
        found.clusters_version,
        *(counts.get(name, 0) for name in classes),
        counts[UNMARKED],
        *(f"{shares[name]:.6g}" if name in shares else "" for name in classes),
        found.flip,
        found.hand,
        " ".join(found.flags),
        found.network,
        found.network_sha256,
        found.path,
    ]


def _stars(rows: Sequence[Row], settings: TomogramFiles, places: Places) -> dict[Path, bytes]:
    """All sub-volumes, and those of each class. A particle has the same name in both."""
    optics = None
    if settings.tilt_series_pixel_a is not None:
        optics = relion_tomo.TomoOptics(
            settings.tilt_series_pixel_a,
            settings.voltage_kv,
            settings.spherical_aberration_mm,
            settings.amplitude_contrast,
        )
    classes = list(classes_of(rows))
    parts = _parts(rows, settings, classes)
    tables = {places.particles(): relion_tomo.encode(parts, optics)}
    for at, name in enumerate(classes, 1):
        chosen = [_of_class(part, at) for part in parts]
        tables[places.particles(file_name(name))] = relion_tomo.encode(
            [part for part in chosen if len(part.xyz)], optics
        )
    return tables


def _parts(rows: Sequence[Row], settings: TomogramFiles, classes: Sequence[str]) -> list[relion_tomo.Part]:
    parts, seen = [], Counter[str]()
    for row in rows:
        found = row.found
        name = run_name(found, row.stem, settings)
        n = len(found.picked)
        number = np.arange(1, n + 1) + seen[name]
        seen[name] += n
        # Records that were marked at different times may number their classes differently.
        values = np.array([0, *(1 + classes.index(own) for own in found.classes)], np.int64)
        label: npt.NDArray[np.int64] = values[found.picked.label]
        parts.append(
            relion_tomo.Part(
                name, found.shape, found.voxel_a, found.picked.xyz, found.picked.score, label, number, note(found)
            )
        )
    return parts


def _of_class(part: relion_tomo.Part, label: int) -> relion_tomo.Part:
    chosen = part.label == label
    return relion_tomo.Part(
        part.tomogram,
        part.shape,
        part.voxel_a,
        part.xyz[chosen],
        part.score[chosen],
        part.label[chosen],
        part.number[chosen],
        part.note,
    )


def _config(rows: Sequence[Row], places: Places) -> bytes:
    classes = {**classes_of(rows), UNMARKED: "#cfd8dc"}
    title = places.directory.absolute().name or "beamsieve"
    return copick.encode_config(places.copick.absolute(), list(classes), list(classes.values()), title)
