"""Images of particles: those that came with a micrograph, carried over to other picks, in the stored type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .micrograph import PickedMicrograph
from .record import Images


def images_of(found: PickedMicrograph, *, inverted: bool) -> Images | None:
    """The particles that a micrograph came with; None where none are kept."""
    if found.particles is None:
        return None
    picks = found.picks
    return Images(found.particles, picks.x, picks.y, picks.score, found.particle_pixel_a, inverted)


def carried(images: Images, found: PickedMicrograph, image: npt.NDArray[np.generic] | None) -> Images:
    """The images of ``found``'s picks, in their order: those that are there, and the others cut out of ``image``.

    Without ``image``, (ny, nx), picks that have no image yet get none.
    """
    picks = found.picks
    where = {place: at for at, place in enumerate(zip(images.x.tolist(), images.y.tolist(), strict=True))}
    have = np.array([where.get(place, -1) for place in zip(picks.x.tolist(), picks.y.tolist(), strict=True)], np.intp)
    missing = have < 0
    if image is None or not missing.any():
        keep = ~missing
        old = have[keep]
        return Images(
            images.pixels[old], picks.x[keep], picks.y[keep], picks.score[keep], images.pixel_a, images.inverted
        )
    pixels = np.empty((len(picks), *images.pixels.shape[1:]), images.pixels.dtype)
    pixels[~missing] = images.pixels[have[~missing]]
    pixels[missing] = cut(found, picks.x[missing], picks.y[missing], image, images.pixels.shape[1], images.inverted)
    return Images(pixels, picks.x, picks.y, picks.score, images.pixel_a, images.inverted)


def cut(
    found: PickedMicrograph,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
    image: npt.NDArray[np.generic],
    size: int,
    inverted: bool,
) -> npt.NDArray[np.float32]:
    """Particles at ``x``, ``y``, (n, size, size), as the beamline cuts them."""
    # Not above: writing files needs no torch.
    from ....models.particles.extract import extract

    return extract(
        image,
        x,
        y,
        box_px=found.box_px,
        size=size,
        diameter_px=found.diameter_a / found.pixel_a,
        invert=inverted,
    )


def stored(images: Images, dtype: str) -> Images:
    """The images in the type that is kept."""
    pixels = images.pixels.astype(dtype, copy=False)
    return Images(pixels, images.x, images.y, images.score, images.pixel_a, images.inverted)
