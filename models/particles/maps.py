"""Density maps of particles: from MRC/CCP4 files, from atomic models, or built in.

A map is cut out of what surrounds it by a soft mask, centred on its centre of mass, made cubic and normalised, so that
every source gives the same kind of volume.
"""

from __future__ import annotations

import gzip
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .built_in import BUILDERS

Floats = npt.NDArray[np.float32]

BUILT_IN = tuple(BUILDERS)
# Electrons that scatter: the elements of biological molecules, by atomic number; others count as carbon.
ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "P": 15, "S": 16, "MG": 12, "ZN": 30, "FE": 26, "SE": 34}
PDB_VOXEL_A = 4.0
PDB_RESOLUTION_A = 12.0
_MOST_VOXELS = 400**3


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A particle's density: ``data`` float32 (n, n, n) in z, y, x, zero in the solvent, mean 1 inside the particle.

    Its centre of mass is on voxel [n // 2] * 3. ``voxel_a``: ångström per voxel. ``diameter_a``: of the sphere around
    the centre that holds 99 % of the density, in ångström.
    """

    data: Floats
    voxel_a: float
    diameter_a: float
    name: str = ""


def load_map(name_or_path: str | Path, *, voxel_a: float | None = None, threshold: float | None = None) -> Volume:
    """A built-in map by its name (``BUILT_IN``), or a file's: ``.mrc``, ``.map``, ``.ccp4``, ``.pdb``, also ``.gz``.

    ``voxel_a``: ångström per voxel; overrides a map's header, and is needed where the header has none. ``threshold``:
    the density at which the particle ends, in the file's units; without it, half of Otsu's. Raises ``ValueError`` for a
    file that is no density, ``OSError`` for one that cannot be read.
    """
    text = str(name_or_path)
    if text in BUILDERS:
        data, voxel = BUILDERS[text]()
        return prepared(data, voxel, threshold=0.1, name=text)
    path = Path(name_or_path)
    plain = path.name.lower().removesuffix(".gz")
    if plain.endswith((".pdb", ".ent")):
        data, voxel = read_pdb(path, voxel_a or PDB_VOXEL_A)
    elif plain.endswith((".mrc", ".map", ".ccp4")):
        data, voxel = read_mrc(path, voxel_a)
    else:
        raise ValueError(
            f"{text}: neither a built-in map ({', '.join(BUILT_IN)}) nor a file ending in .mrc, .map, .ccp4 or .pdb"
        )
    try:
        return prepared(data, voxel, threshold=threshold, name=plain.rsplit(".", 1)[0])
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def read_mrc(path: Path, voxel_a: float | None = None) -> tuple[Floats, float]:
    """Density float32 in z, y, x, and ångström per voxel, of an MRC or CCP4 map. Raises ``ValueError``, ``OSError``."""
    import mrcfile

    with warnings.catch_warnings():
        # Old maps lack the format's name or byte order; what matters is checked here.
        warnings.simplefilter("ignore")
        with mrcfile.open(path, mode="r", permissive=True, header_only=True) as file:
            sides = [int(file.header[name]) for name in ("nx", "ny", "nz")]
        # A header that is none may ask for terabytes.
        if min(sides) < 1 or math.prod(sides) > _MOST_VOXELS:
            raise ValueError(f"{path}: its header says {sides} voxels; name a density map of at most 400 a side")
        opened = mrcfile.open(path, mode="r", permissive=True)
    with opened as file:
        if file.data is None or file.data.ndim != 3:
            raise ValueError(f"{path}: holds no whole three-dimensional map; name a density map")
        order = [int(file.header[name]) for name in ("mapc", "mapr", "maps")]
        steps = [float(file.voxel_size[axis]) for axis in ("x", "y", "z")]
        data = np.array(file.data, dtype=np.float32)
    if sorted(order) == [1, 2, 3]:
        # Axis 2 of the array is the one that mapc names, axis 0 the one that maps names; the result is z, y, x.
        data = data.transpose([2 - order.index(axis) for axis in (3, 2, 1)])
    if voxel_a is None:
        if not all(np.isfinite(s) and s > 0 for s in steps):
            raise ValueError(f"{path}: the header has no voxel size; state it (voxel_a, ångström per voxel)")
        if max(steps) > 1.02 * min(steps):
            sizes = " × ".join(f"{s:.3g}" for s in steps)
            raise ValueError(f"{path}: voxels of {sizes} Å are not cubes; resample the map to equal voxels")
        voxel_a = sum(steps) / 3
    return np.ascontiguousarray(data), voxel_a


def read_pdb(path: Path, voxel_a: float = PDB_VOXEL_A, resolution_a: float = PDB_RESOLUTION_A) -> tuple[Floats, float]:
    """Density of the atoms of a PDB file (first model): a Gaussian blob for each, as heavy as its atomic number.

    The blobs' standard deviation is 0.225 × ``resolution_a``, so that they fall to 1/e at half of it in Fourier space.
    Raises ``ValueError`` where a line is broken or no atom is found, ``OSError`` where the file cannot be read.
    """
    positions, weights = [], []
    with (gzip.open if path.name.lower().endswith(".gz") else open)(
        path, "rt", encoding="ascii", errors="replace"
    ) as f:
        for number, line in enumerate(f, 1):
            if line.startswith("ENDMDL"):
                break
            if not line.startswith(("ATOM  ", "HETATM")) or line[17:20] == "HOH":
                continue
            try:
                positions.append([float(line[i : i + 8]) for i in (30, 38, 46)])
            except ValueError:
                raise ValueError(f"{path}:{number}: columns 31 to 54 are not three coordinates") from None
            element = line[76:78].strip().upper() or line[12:14].strip(" 0123456789").upper()[:1]
            weights.append(ATOMIC_NUMBERS.get(element, 6))
    if not positions:
        raise ValueError(f"{path}: no ATOM lines; name a PDB file (mmCIF is not read)")
    at = np.array(positions) / voxel_a
    sigma = 0.225 * resolution_a / voxel_a
    lowest = np.floor(at.min(0) - 4 * sigma - 1)
    shape = np.ceil(at.max(0) - lowest + 4 * sigma + 1).astype(int)
    if np.prod(shape.astype(float)) > _MOST_VOXELS:
        raise ValueError(f"{path}: the atoms span {shape * voxel_a} Å; state a larger voxel_a")
    counts, _ = np.histogramdd(at - lowest, bins=shape, range=[(0, s) for s in shape], weights=weights)
    return ndimage.gaussian_filter(counts.astype(np.float32), sigma).transpose(2, 1, 0).copy(), voxel_a


def otsu(values: Floats, bins: int = 512) -> float:
    """The threshold that parts values into two classes of least variance (Otsu, IEEE Trans. SMC 9, 1979).

    ``values``: of any shape; the threshold is in their unit, to a bin's width.
    """
    if values.min() == values.max():
        return float(values.min())
    counts, edges = np.histogram(values, bins)
    middle = (edges[1:] + edges[:-1]) / 2
    low, total = np.cumsum(counts), counts.sum()
    first = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (first[-1] * low - total * first) ** 2 / (low * (total - low))
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def prepared(data: npt.ArrayLike, voxel_a: float, *, threshold: float | None = None, name: str = "") -> Volume:
    """A density as a ``Volume``: masked softly, centred, cubic, normalised. Raises ``ValueError`` where none is left.

    ``data``: (nz, ny, nx), any real dtype; ``voxel_a``: ångström per voxel.

    The mask is the largest connected part above ``threshold`` (without it, half of Otsu's above the border's median),
    widened by two voxels that fall off like a cosine.
    """
    density = np.asarray(data, dtype=np.float32)
    if density.ndim != 3 or min(density.shape) < 4 or density.size > _MOST_VOXELS:
        raise ValueError(f"a density of shape {density.shape} is no map of 4 to 400 voxels a side")
    if not (np.isfinite(density).all() and np.isfinite(voxel_a) and voxel_a > 0):
        raise ValueError(f"the density or its voxel size ({voxel_a} Å) is not finite")
    solvent = float(np.median(np.concatenate([density[[0, -1]].ravel(), density[:, [0, -1]].ravel()])))
    density = density - solvent
    level = (
        0.5 * otsu(density[density > 0]) if threshold is None and (density > 0).any() else (threshold or 0.0) - solvent
    )
    parts, count = ndimage.label(density > level)
    if not count:
        raise ValueError(f"no density above {level + solvent:.3g}; state a lower threshold")
    inside = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    density = np.maximum(density, 0)
    density *= 0.5 + 0.5 * np.cos(np.pi * np.minimum(ndimage.distance_transform_edt(~inside) / 3, 1))
    return _centred(density / density[inside].mean(), voxel_a, name)


def _centred(density: Floats, voxel_a: float, name: str) -> Volume:
    centre = np.array(ndimage.center_of_mass(density))
    z, y, x = (np.arange(s) - c for s, c in zip(density.shape, centre, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    filled = density > 0
    order = np.argsort(radius[filled])
    held = np.cumsum(density[filled][order])
    within = float(radius[filled][order][np.searchsorted(held, 0.99 * held[-1])])
    half = int(np.ceil(radius[filled].max())) + 2
    n = 2 * half
    grid = [np.arange(n) - half + c for c in centre]
    cube = ndimage.map_coordinates(density, np.meshgrid(*grid, indexing="ij"), order=3, mode="constant")
    return Volume(np.maximum(cube, 0).astype(np.float32), voxel_a, 2 * within * voxel_a, name)
