"""A micrograph's files for other programs: coordinates in every format, and particles as a RELION stack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from ...formats import box, cbox, cryosparc, eman, plain, relion
from ...formats.centres import upside_down
from .files import whole, write_whole
from .micrograph import PickedMicrograph
from .places import KINDS, Places
from .record import Imaged, Images, Record
from .settings import Format, PickSettings


def export(record: Record, images: Images | None, settings: PickSettings, places: Places) -> None:
    """Write every file of one micrograph that the settings ask for, and remove those that show other picks.

    A micrograph that was skipped has none. Raises ``OSError``.
    """
    wanted: set[str] = set() if record.micrograph.skipped else set(settings.formats)
    for name in settings.formats:
        path = places.of(name, record.stem)
        if name in wanted or (name == "eman" and path.exists()):
            write_whole(path, content(name, record, settings, places))
    wanted |= {"picture", *(["eman"] if places.of("eman", record.stem).exists() else [])}
    if settings.particles.mrcs and images is not None and len(images) and not record.micrograph.skipped:
        _stack(record, images, settings, places)
        wanted |= {"mrcs", "particles"}
    for kind in KINDS.keys() - wanted:
        with suppress(FileNotFoundError):
            places.of(kind, record.stem).unlink()


def content(name: Format, record: Record, settings: PickSettings, places: Places) -> bytes:
    """The file of one format. Rows count from the bottom where the settings say so."""
    m = record.micrograph
    turned = name in settings.invert_y
    found = m.candidates if name == "cbox" else m.picks
    y = upside_down(found.y, m.shape[0]).astype(np.float32) if turned else found.y
    x, score = found.x, found.score
    if name == "star":
        return relion.encode_picks(x, y, score)
    if name == "box":
        return box.encode(x, y, m.box_px)
    if name == "eman":
        return eman.encode(x, y, before=_before(places.of("eman", record.stem)))
    if name == "cbox":
        return cbox.encode(x, y, score, m.box_px)
    if name == "cryosparc":
        return cryosparc.encode([located(m, places, turned=turned)])
    return plain.encode_csv(m.name, x, y, score) if name == "csv" else plain.encode_coords(x, y)


def located(m: PickedMicrograph, places: Places, *, turned: bool) -> cryosparc.Located:
    """The micrograph's picks for cryoSPARC. ``turned``: rows count from the bottom."""
    y = upside_down(m.picks.y, m.shape[0]).astype(np.float32) if turned else m.picks.y
    return cryosparc.Located(
        m.name, places.called(m.path), m.shape, m.pixel_a, m.diameter_a, m.picks.x, y, m.picks.score
    )


def optics(m: PickedMicrograph, settings: PickSettings) -> relion.Optics:
    """The micrograph's optics: what the microscope said, else what the settings say."""
    return relion.Optics(
        m.pixel_a,
        _known(m.info, "voltage_kv", settings.voltage_kv),
        _known(m.info, "spherical_aberration_mm", settings.spherical_aberration_mm),
        _known(m.info, "amplitude_contrast", settings.amplitude_contrast),
    )


def _known(info: Mapping[str, Any], name: str, otherwise: float | None) -> float | None:
    value = info.get(name)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else otherwise


def stack(m: PickedMicrograph, file: Path, images: Imaged, settings: PickSettings, places: Places) -> relion.Stack:
    """The rows of a particles STAR for the images in ``file``."""
    own = optics(m, settings)
    full = replace(own, image_pixel_a=images.pixel_a, image_size=images.size)
    y = upside_down(images.y, m.shape[0]).astype(np.float32) if "star" in settings.invert_y else images.y
    return relion.Stack(places.called(m.path), places.called(file), full, images.x, y, images.score)


def _stack(record: Record, images: Images, settings: PickSettings, places: Places) -> None:
    path = places.of("mrcs", record.stem)
    with whole(path) as working, mrcfile.new(working) as file:
        # float16 becomes mode 12, float32 mode 2; the header of a single image would else be a volume's.
        file.set_data(np.ascontiguousarray(images.pixels))
        file.set_image_stack()
        file.voxel_size = images.pixel_a
    rows = stack(record.micrograph, path, images.imaged, settings, places)
    write_whole(places.of("particles", record.stem), relion.encode_particles([rows]))


def _before(path: Path) -> dict[str, Any] | None:
    """What an EMAN2 info file holds already; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
