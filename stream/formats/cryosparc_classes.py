"""2-D classes for cryoSPARC: particles with ``alignments2D``, ``templates.cs`` over their averages and ``.csg``.

**Angles and shifts.** Ours: p_class = R(angle) (p_particle - shift), with R = [[cos, -sin], [sin, cos]] on (x, y), y
down the rows, from pixel size / 2 (see ``relion_classes``). cryoSPARC's are not documented. Its own cryosparc-tools
subtract ``alignments2D/shift`` from a particle's place to centre it, and programs that lay class averages over the
particles they were made of have p_particle = R(pose) p_class - shift. So the pose is the angle with the other sign, in
radians, and the shift is ours with the other sign, in pixels of ``alignments2D/psize_A``. (pyem copies the pose into
``rlnAnglePsi`` without changing its sign, others change it: look at a turned class before you rely on poses.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .centres import Floats
from .cryosparc import Located, encode_rows, table, uid

Table: TypeAlias = npt.NDArray[Any]
ALIGNMENTS: tuple[tuple[Any, ...], ...] = (
    ("alignments2D/class", "<u4"),
    ("alignments2D/class_posterior", "<f4"),
    ("alignments2D/class_ess", "<f4"),
    ("alignments2D/pose", "<f4"),
    ("alignments2D/shift", "<f4", (2,)),
    ("alignments2D/psize_A", "<f4"),
    ("alignments2D/cross_cor", "<f4"),
    ("alignments2D/alpha", "<f4"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Particles of one stack, or of one micrograph. n each, all classified.

    ``name``: what their identities are made of where there is no ``located``. ``image``: their numbers in the stack,
    from 0. ``number``: class, from 0. ``angle``: degrees, ``shift``: (n, 2) x and y in pixels of the image,
    ``similarity``: to the class centre, -1 to 1. ``edge`` and ``pixel_a``: of the images. ``path``: the stack as
    cryoSPARC shall see it, None: there is none. ``located``: their places, in this order, or None.
    """

    name: str
    image: npt.NDArray[np.int32]
    number: npt.NDArray[np.int32]
    angle: Floats
    shift: Floats
    similarity: Floats
    edge: int
    pixel_a: float
    path: str | None = None
    located: Located | None = None


def pose(angle: Floats) -> Floats:
    """``alignments2D/pose``, radians from -π to π, of our angles in degrees."""
    turned = np.remainder(180 - np.asarray(angle, np.float64), 360) - 180
    found: Floats = np.deg2rad(turned).astype(np.float32)
    return found


def encode_particles(stacks: Sequence[Aligned]) -> bytes:
    """``particles.cs``: ``uid``, ``alignments2D``, and what all stacks know of ``blob`` and ``location``.

    A pick has the ``uid`` that it has in the file of picks. Each particle belongs to one class wholly: its posterior is
    1, and no scale is fitted (``alpha`` 1).
    """
    parts = [_rows(stack) for stack in stacks]
    kept = _common([part.dtype for part in parts])
    rows = np.zeros(sum(map(len, parts)), kept)
    start = 0
    for part in parts:
        for name in kept.names or ():
            rows[name][start : start + len(part)] = part[name]
        start += len(part)
    return encode_rows(rows)


def _common(types: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The fields that all have, wide enough for the longest text of any."""
    if not types:
        return np.dtype([("uid", "<u8"), *ALIGNMENTS])
    fields = []
    for name in types[0].names or ():
        found = [kind[name] for kind in types if name in (kind.names or ())]
        if len(found) == len(types):
            fields.append((name, max(found, key=lambda kind: kind.itemsize)))
    return np.dtype(fields)


def _rows(stack: Aligned) -> Table:
    n = len(stack.image)
    places = None if stack.located is None else table([stack.located])
    blob = () if stack.path is None else _blob(len(stack.path.encode()))
    located: list[tuple[Any, ...]] = []
    if places is not None:
        located = [(name, places.dtype[name]) for name in places.dtype.names or () if name != "uid"]
    rows = np.zeros(n, np.dtype([("uid", "<u8"), *ALIGNMENTS, *blob, *located]))
    if places is None:
        rows["uid"] = [uid(stack.name, at) for at in stack.image.tolist()]
    else:
        for name in places.dtype.names or ():
            rows[name] = places[name]
    rows["alignments2D/class"] = stack.number
    rows["alignments2D/class_posterior"] = rows["alignments2D/class_ess"] = rows["alignments2D/alpha"] = 1
    rows["alignments2D/pose"] = pose(stack.angle)
    rows["alignments2D/shift"] = np.float32(0) - stack.shift
    rows["alignments2D/psize_A"] = stack.pixel_a
    rows["alignments2D/cross_cor"] = stack.similarity
    if stack.path is not None:
        _fill_blob(rows, stack.path, stack.image, stack.edge, stack.pixel_a)
    return rows


def _blob(room: int) -> tuple[tuple[Any, ...], ...]:
    return (
        ("blob/path", f"S{max(room, 1)}"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("blob/sign", "<f4"),
    )


def _fill_blob(rows: Table, path: str, image: npt.NDArray[np.int32], edge: int, pixel_a: float) -> None:
    rows["blob/path"], rows["blob/idx"], rows["blob/shape"] = path.encode(), image, edge
    # Particles are white: their values need not change their sign.
    rows["blob/psize_A"], rows["blob/sign"] = pixel_a, 1


def encode_templates(path: str, edge: int, pixel_a: float, resolution_a: Sequence[float]) -> bytes:
    """``templates.cs``: class averages in the stack ``path``, in order. A resolution that is not known (NaN) is 0."""
    count = len(resolution_a)
    rows = np.zeros(count, np.dtype([("uid", "<u8"), *_blob(len(path.encode())), ("blob/res_A", "<f4")]))
    rows["uid"] = [uid("template", path, at) for at in range(count)]
    _fill_blob(rows, path, np.arange(count, dtype=np.int32), edge, pixel_a)
    rows["blob/res_A"] = [value if math.isfinite(value) else 0.0 for value in resolution_a]
    return encode_rows(rows)


def encode_group(kind: str, metafile: str, slots: Sequence[str], count: int, *, created: str, version: str) -> bytes:
    """The ``.csg`` beside ``metafile``. ``kind``: ``particle`` or ``template``. ``created``: as in ``cryosparc``."""
    results = "".join(
        f"  {slot}:\n    metafile: '>{metafile}'\n    num_items: {count}\n    type: {kind}.{slot}\n" for slot in slots
    )
    what = {"particle": ("particles", "Particles in 2-D classes"), "template": ("class_averages", "2-D class averages")}
    name, title = what[kind]
    return (
        f"created: {created}\ngroup:\n  description: {title}, by beamsieve\n  name: {name}\n  title: {title}\n"
        f"  type: {kind}\nresults:\n{results}version: beamsieve {version}\n"
    ).encode()
