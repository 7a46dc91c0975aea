"""2-D classes as RELION's Class2D jobs leave them: ``_data.star``, ``_model.star``, ``_optimiser.star``.

What RELION 4 and 5 read of them was looked up in their sources: "Subset selection" (``relion_display``) takes
``_optimiser.star`` (``rlnModelStarFile``), the ``_data.star`` beside it (its optics must have a voltage, a spherical
aberration and a pixel size; ``rlnClassNumber``) and of the model ``rlnReferenceImage``: the class of row n is class n.
``relion_class_ranker`` refuses jobs that did not correct for the contrast transfer function, as this one did not.

**Angles and shifts.** Ours move a particle by -shift and then turn it by the angle, x towards y, to match its class:
p_class = R(angle) (p_particle - shift), from pixel size / 2, with R = [[cos, -sin], [sin, cos]] on (x, y), y down the
rows. RELION (``displayer.cpp``, apply_orient; ``transformations.h``: out = A in, from pixel (int)(size / 2)) has
p_class = R(rlnAnglePsi) (p_particle + rlnOrigin). So psi is the angle, and the origin is -shift, in ångström.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .centres import Floats
from .relion import MICROGRAPH, OF_PARTICLES, SCORE, Groups, Optics
from .star import VERSION, loop, pairs, quote

Whole: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedStack:
    """Some particles of one stack, or of one micrograph. n each.

    ``optics``: with the pixel size and the edge of the images. ``image``: their numbers in the stack, from 1.
    ``number``: their class, as RELION counts it (from 1; 0: none). ``angle``: degrees; ``shift_a``: (n, 2), x and y in
    ångström, as this project has them (see the module). ``file``: the stack as RELION shall see it, None: there is
    none. ``micrograph``, ``x``, ``y``, ``score``: where they were cut from, or None.
    """

    optics: Optics
    image: Whole
    number: Whole
    angle: Floats
    shift_a: Floats
    file: str | None = None
    micrograph: str | None = None
    x: Floats | None = None
    y: Floats | None = None
    score: Floats | None = None


@dataclass(frozen=True, slots=True)
class ModelClass:
    """A class in ``_model.star``: its share of the particles, and its resolution in ångström (NaN: not known)."""

    share: float
    resolution_a: float


def psi(angle: Floats) -> Floats:
    """``rlnAnglePsi``, degrees from -180 to 180, of our angles."""
    found: Floats = np.remainder(np.asarray(angle, np.float32) + 180, np.float32(360)) - np.float32(180)
    return found


def origin(shift_a: Floats) -> Floats:
    """``rlnOriginXAngst`` and ``rlnOriginYAngst`` (n, 2) of our shifts in ångström. 0 is not written as -0."""
    found: Floats = np.float32(0) - np.asarray(shift_a, np.float32)
    return found


def encode_data(stacks: Sequence[ClassifiedStack]) -> bytes:
    """``_data.star``: optics and particles. A column that one stack does not know is left out."""
    groups = Groups()
    with_places = all(s.x is not None and s.y is not None and s.micrograph is not None for s in stacks)
    with_score = all(s.score is not None for s in stacks)
    with_file = all(s.file is not None for s in stacks)
    columns = [
        *(["rlnCoordinateX", "rlnCoordinateY", MICROGRAPH] if with_places else []),
        *([SCORE] if with_score else []),
        *(["rlnImageName"] if with_file else []),
        *("rlnOpticsGroup", "rlnClassNumber", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"),
    ]
    rows: list[tuple[str, ...]] = []
    for stack in stacks:
        parts: list[Sequence[str]] = []
        n = len(stack.image)
        if with_places and stack.x is not None and stack.y is not None and stack.micrograph is not None:
            parts += [_floats(stack.x), _floats(stack.y), [quote(stack.micrograph)] * n]
        if with_score and stack.score is not None:
            parts.append(_floats(stack.score))
        if with_file and stack.file is not None:
            parts.append([quote(f"{at:06d}@{stack.file}") for at in stack.image.tolist()])
        moved = origin(stack.shift_a)
        parts += [
            [groups.number(stack.optics)] * n if n else [],
            [str(number) for number in stack.number.tolist()],
            _floats(psi(stack.angle)),
            _floats(moved[:, 0]),
            _floats(moved[:, 1]),
        ]
        rows += zip(*parts, strict=True)
    return (groups.block(OF_PARTICLES) + loop("particles", columns, rows)).encode()


def _floats(values: Floats) -> list[str]:
    return [f"{value:12.6f}" for value in values.tolist()]


def encode_model(classes_file: str, edge: int, pixel_a: float, classes: Sequence[ModelClass]) -> bytes:
    """``_model.star``. ``classes_file``: the averages as RELION shall see them. ``pixel_a``: theirs.

    What is not known (noise spectra, priors) is left out. A resolution that is not known is infinite, as in RELION's
    own files.
    """
    general = (
        ("rlnReferenceDimensionality", "2"),
        ("rlnDataDimensionality", "2"),
        ("rlnOriginalImageSize", str(edge)),
        ("rlnPixelSize", f"{pixel_a:.6f}"),
        ("rlnNrClasses", str(len(classes))),
        ("rlnNrBodies", "1"),
    )
    rows = [
        (quote(f"{at:06d}@{classes_file}"), f"{one.share:12.6f}", _resolution(one.resolution_a))
        for at, one in enumerate(classes, 1)
    ]
    columns = ("rlnReferenceImage", "rlnClassDistribution", "rlnEstimatedResolution")
    return (_pairs("model_general", general) + loop("model_classes", columns, rows)).encode()


def _resolution(value: float) -> str:
    return f"{value:12.6f}" if math.isfinite(value) else "         inf"


def encode_optimiser(root: str, iteration: int, *, diameter_a: float | None = None) -> bytes:
    """``_optimiser.star``, by which "Subset selection" finds the others. ``root``: as ``Class2D/job010/run``.

    ``diameter_a``: of the particle, where it is known.
    """
    stem = f"{root}_it{iteration:03d}"
    general = [
        ("rlnOutputRootName", quote(root)),
        ("rlnModelStarFile", quote(f"{stem}_model.star")),
        ("rlnExperimentalDataStarFile", quote(f"{stem}_data.star")),
        ("rlnCurrentIteration", str(iteration)),
        ("rlnNumberOfIterations", str(iteration)),
        ("rlnDoSplitRandomHalves", "0"),
        ("rlnDoCorrectCtf", "0"),
    ]
    if diameter_a is not None:
        general.append(("rlnParticleDiameter", f"{diameter_a:.6f}"))
    return _pairs("optimiser_general", general).encode()


def _pairs(name: str, values: Sequence[tuple[str, str]]) -> str:
    return f"\n{VERSION}\n{pairs(name, values)}"
