"""What a simulated tomogram may show, and what is true of it: options, classes, particles, densities."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .tilts import angles
from .volume import Floats, Shape

Labels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Numbers = tuple[int, int]

CLASSES = ("background", "membrane", "ribosome", "globule", "carbon", "gold")
"""What a label's value means, by its place."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A macromolecule: ``map``, what ``load_map`` takes, and its class.

    ``number``: least and most, per million cubic nanometres (0.001 µm³), so that a larger field holds more.
    ``density``: against protein's; nucleic acid is denser.
    """

    map: str
    label: str = "globule"
    number: tuple[float, float] = (1.0, 3.0)
    density: float = 1.0


KINDS = (
    Kind("ribosome", "ribosome", (3.0, 8.0), 1.4),
    Kind("proteasome"),
    Kind("apoferritin"),
    # Rare, as giants are: a tube whose wall is as thick as a bilayer, which is easily taken for one.
    Kind("hemocyanin", number=(0.2, 0.8)),
)


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What is simulated. Pairs are least and most, drawn evenly.

    ``shape``: voxels (z, y, x); ``voxel_a``: ångström. ``snr``: variance of a tilt image's signal (of membranes and
    macromolecules, through the transfer function, the mean over the series) over the variance of its noise; None: no
    noise. ``tilts``: first, last and step, degrees. ``defocus_um``: under focus, micrometres, the same for all tilts
    and the whole of each. ``kinds``: macromolecules. ``vesicles``, ``sheets``, ``gold``: how many. ``vesicle_nm``:
    radii. ``carbon``: how probable a carbon film's edge is. ``margin``: voxels along x and y that are simulated around
    the field, so that tilts bring in what lies beside it.
    """

    shape: Shape = (64, 192, 192)
    voxel_a: float = 14.2
    snr: float | None = 0.1
    tilts: tuple[float, float, float] = (-60.0, 50.0, 4.0)
    defocus_um: tuple[float, float] = (5.0, 7.0)
    voltage_kv: float = 300.0
    kinds: tuple[Kind, ...] = KINDS
    vesicles: Numbers = (1, 3)
    vesicle_nm: tuple[float, float] = (20.0, 50.0)
    sheets: Numbers = (0, 1)
    carbon: float = 0.3
    gold: Numbers = (0, 5)
    margin: int = 16

    def __post_init__(self) -> None:
        if min(self.shape) < 16 or not self.voxel_a > 0:
            raise ValueError(f"shape {self.shape}, voxel_a {self.voxel_a:g}: 16 voxels and more, of a positive size")
        if self.snr is not None and not self.snr > 0:
            raise ValueError(f"snr: {self.snr:g} is not positive; None is without noise")
        unknown = [kind.label for kind in self.kinds if kind.label not in CLASSES[1:]]
        if unknown:
            raise ValueError(f"kinds: class {unknown[0]!r} unknown; known are {', '.join(CLASSES[1:])}")
        angles(*self.tilts)


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """Macromolecules and gold, n of them. Positions in voxels of the tomogram, middle of the first voxel 0.

    ``xyz``: float32 (n, 3), in the order x, y, z, of those whose centre is in the field. ``label``: uint8 (n,), index
    into ``CLASSES``. ``name``: of their maps. ``rotation``: float32 (n, 3, 3), map to tomogram, of columns x, y, z.
    ``diameter_a``: float32 (n,), ångström.
    """

    xyz: Floats
    label: Labels
    name: tuple[str, ...]
    rotation: Floats
    diameter_a: Floats

    def __len__(self) -> int:
        return len(self.xyz)

    def take(self, which: npt.NDArray[np.bool_]) -> Particles:
        """Those that a mask names."""
        names = tuple(name for name, wanted in zip(self.name, which, strict=True) if wanted)
        return Particles(self.xyz[which], self.label[which], names, self.rotation[which], self.diameter_a[which])


@dataclass(slots=True, eq=False)
class Scene:
    """Density of all there is, and of what is neither biological nor signal; both float32 (z, y, x), with the margin.

    ``labels``: uint8, index into ``CLASSES``. ``hidden``: bool, voxels of membranes that no tilt shows.
    """

    matter: Floats
    other: Floats
    labels: Labels
    hidden: npt.NDArray[np.bool_]
    clear: Floats
    placed: list[tuple[Doubles, float, int, str, Doubles]] = field(default_factory=list)
