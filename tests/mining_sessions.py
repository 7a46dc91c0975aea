"""Small tomograms with two kinds of things in them, a tiny network, and settings of a daemon that is impatient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from beamsieve.models.tomograms.bundles import untrained
from beamsieve.models.tomograms.codec import Codec
from beamsieve.stream.beamlines.cryoet_mining import CryoetMining
from beamsieve.stream.beamlines.mining_bench import Bench, Benches, load_codec
from beamsieve.stream.beamlines.mining_keeper import Keeper
from beamsieve.stream.beamlines.mining_marks import Marks
from beamsieve.stream.beamlines.mining_networks import COMMAND, Networks
from beamsieve.stream.beamlines.mining_records import Records
from beamsieve.stream.beamlines.mining_store import Store
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import Mined
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.sinks.picks.files import write_whole
from beamsieve.stream.sinks.tomograms.mined import Kept, MinedTomogram, Picked
from beamsieve.stream.sinks.tomograms.places import Places
from beamsieve.stream.sinks.tomograms.record import encode
from scipy import ndimage

Floats = npt.NDArray[np.float32]

SHAPE = (48, 96, 96)
VOXEL_A = 14.2
EDGE = 16
#: A ball is dark all through, a shell only at its surface.
BALL, SHELL = 1, 2


def tomogram(seed: int, shape: tuple[int, int, int] = SHAPE, noise: float = 0.5) -> tuple[Floats, Floats]:
    """Voxels (z, y, x), density dark, and what is in them: (x, y, z, kind) a row each."""
    random = np.random.default_rng(seed)
    data = np.zeros(shape, np.float32)
    things = []
    for z in range(12, shape[0] - 8, 24):
        for y in range(12, shape[1] - 8, 24):
            for x in range(12, shape[2] - 8, 24):
                kind = BALL if random.random() < 0.5 else SHELL
                at = np.array([z, y, x]) + random.integers(-2, 3, 3)
                things.append((at[2], at[1], at[0], kind))
                far = np.sqrt(sum((g - a) ** 2 for g, a in zip(np.ogrid[tuple(map(slice, shape))], at, strict=True)))
                data -= (far < 5) * 2.0 if kind == BALL else (abs(far - 6) < 1.2) * 2.0
    noisy = data + random.normal(0, noise, shape).astype(np.float32)
    return ndimage.gaussian_filter(noisy, 0.7).astype(np.float32), np.array(things, np.float32)


def write(path: Path, seed: int) -> Floats:
    """Write such a tomogram; what is in it."""
    data, things = tomogram(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, data.shape, 2, VOXEL_A) as writer:
        writer.write(data)
    return things


def network(folder: Path, seed: int = 0, name: str = "tiny") -> Path:
    """The file of a tiny network that was never trained."""
    return untrained(folder, name, edge=EDGE, channels=4, seed=seed)


def settings(folder: Path, bundle: Path, **changes: Any) -> dict[str, Any]:
    """A configuration with folders ``in`` and ``out``; ``changes``: blocks that are added to."""
    blocks: dict[str, Any] = {
        "source": {
            "directory": str(folder / "in"),
            "take": "tomograms",
            "settle_s": 0.0,
            "poll_s": 0.05,
            "end_idle_s": 0.4,
            "retry_s": 0.1,
            "incomplete_s": 0.5,
            "attempts": 2,
        },
        "model": {"bundle": str(bundle), "threads": 1, "device": "cpu", "threshold": 2.0, "sigma": 3.0},
        "clusters": {"number": 4, "first_at": 40, "retrain": False, "keep_per_tomogram": 20},
        "segment": {"on": False},
        "files": {"directory": str(folder / "out"), "formats": ["star"], "pictures": False, "min_free_gb": 0},
        "service": {"port": 0},
    }
    for name, values in changes.items():
        blocks[name] = {**blocks.get(name, {}), **values}
    return {"beamline": "cryoet_mining", **blocks}


def blobs(count: int, seed: int, kinds: int = 3) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Sub-volumes float32 (n, EDGE, EDGE, EDGE), each of mean 0 and s.d. 1, of a few kinds; and which each is of."""
    random = np.random.default_rng(seed)
    z, y, x = np.mgrid[:EDGE, :EDGE, :EDGE] - EDGE // 2
    shapes = [np.hypot(np.hypot(z, y), x) < 5, abs(z) < 2, (abs(y) < 2) & (abs(x) < 2)][:kinds]
    which = random.integers(0, kinds, count)
    boxes = np.array([shapes[kind] for kind in which], np.float32).reshape(-1, EDGE, EDGE, EDGE) * 3
    boxes += random.normal(0, 0.3, boxes.shape).astype(np.float32)
    level = boxes - boxes.mean((1, 2, 3), keepdims=True)
    return (level / level.std((1, 2, 3), keepdims=True)).astype(np.float32), which


def write_record(folder: Path, name: str, codec: Codec, count: int, seed: int, keep: int = 20) -> npt.NDArray[np.intp]:
    """A record of ``count`` such sub-volumes, encoded by ``codec``; which kind each is of."""
    boxes, which = blobs(count, seed)
    places = Places(folder)
    rows = np.arange(min(keep, count), dtype=np.int32)
    found = MinedTomogram(
        name=name,
        path=folder / name,
        shape=SHAPE,
        voxel_a=VOXEL_A,
        working_voxel_a=VOXEL_A,
        picked=Picked.of(
            np.random.default_rng(seed).uniform(10, 38, (count, 3)).astype(np.float32),
            np.ones(count, np.float32),
            codec.encode(boxes),
            error=codec.error(boxes),
        ),
        network=codec.name,
        network_sha256=codec.sha256,
        threshold=3.0,
        edge=EDGE,
        kept=Kept(rows, boxes[rows].astype(np.float16)),
    )
    path = places.record(name)
    write_whole(path, encode(found, stem=places.stem(name)))
    return which


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def session(folder: Path, bundle: Path, clock: Clock, command: tuple[str, ...] = (), **changes: Any) -> Keeper:
    """The work in the background of a session in ``folder / "out"``, without a thread; begun."""
    chosen = CryoetMining.model_validate(settings(folder, bundle, **changes))
    metrics = Metrics("cryoet_mining")
    metrics.mined = facts = Mined()
    base = Bench(load_codec(chosen.model, str(bundle)))
    benches = Benches(base, metrics)
    directory = folder / "out"
    directory.mkdir(exist_ok=True)
    marks = Marks(directory, lambda: set(() if (c := benches.now.clusters) is None else c.ids.tolist()))
    marks.look()
    store = Store(directory, chosen.model, base)
    found = store.bench(marks.groups)
    benches.put(**{name: getattr(found, name) for name in Bench.__slots__})
    networks = Networks(
        store, chosen.model, chosen.clusters, chosen.segment, facts, clock=clock, command=command or COMMAND
    )
    records = Records(Places(directory), chosen.files)
    keeper = Keeper(chosen.clusters, store, benches, marks, networks, records, facts, clock=clock)
    keeper.begin()
    return keeper


def settle(keeper: Keeper, clock: Clock, seconds: float = 10.0) -> None:
    """Let it do all there is to do within so many seconds of its clock."""
    end = clock.now + seconds
    while clock.now < end:
        if not keeper.step():
            clock.now += 1.0
