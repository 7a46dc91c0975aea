"""A session's folder with particles of a few shapes, a denoiser that is a blur, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from beamsieve.models.bundle import quiet_torchscript, save_bundle
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.beamlines.class_keeping import Keeping
from beamsieve.stream.beamlines.class_marks import ClassMarks
from beamsieve.stream.beamlines.class_networks import Networks
from beamsieve.stream.beamlines.class_settings import ClassSettings, Loaded
from beamsieve.stream.beamlines.class_store import Store
from beamsieve.stream.beamlines.class_work import ClassWork
from beamsieve.stream.flow.classed import Classed
from beamsieve.stream.sinks.picks.files import write_whole
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.places import Places
from beamsieve.stream.sinks.picks.record import Images, Record, encode, now
from beamsieve.stream.sinks.picks.settings import PickSettings
from scipy import ndimage

Floats = npt.NDArray[np.float32]

SIZE, PIXEL_A = 32, 4.0
SHAPES = 3


def shape(kind: int, angle: float) -> Floats:
    """A bar, a triangle of blobs or a ring with a gap, turned; (SIZE, SIZE)."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    turn = np.radians(angle)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    if kind == 0:
        found = np.exp(-((u / 8) ** 4) - (v / 2.5) ** 4)
    elif kind == 1:
        corners = [(7 * np.cos(a), 7 * np.sin(a)) for a in (0, 2.1, 4.2)]
        found = sum(np.exp(-((u - a) ** 2 + (v - b) ** 2) / 8) for a, b in corners)
    else:
        found = np.exp(-((np.hypot(u, v) - 7) ** 2) / 4) * (1 - 0.9 * np.exp(-((u - 7) ** 2 + v**2) / 12))
    return np.asarray(found, np.float32)


def particles(count: int, seed: int, noise: float = 0.3) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Particles float32 (n, SIZE, SIZE) with noise, and which shape each is."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, SHAPES, count)
    images = np.array([shape(kind, random.uniform(0, 360)) for kind in kinds], np.float32).reshape(-1, SIZE, SIZE)
    return images + random.normal(0, noise, images.shape).astype(np.float32), kinds


def picked(
    name: str, count: int, *, score: float = 0.9, first: int = 0, pixel_a: float = PIXEL_A, path: Path = Path()
) -> PickedMicrograph:
    """A micrograph with picks; number i lies at ((first + i), 2 · (first + i))."""
    at = np.arange(first, first + count, dtype=np.float32)
    candidates = Candidates(at, 2 * at, np.full(count, score, np.float32), np.ones(count, np.float32))
    return PickedMicrograph(
        name=name,
        path=path / name,
        shape=(4096, 4096),
        pixel_a=2.0,
        candidates=candidates,
        picked=np.ones(count, bool),
        threshold=0.5,
        model="picker",
        model_sha256="0" * 64,
        diameter_a=100.0,
        box_px=64,
        quality={},
        particle_pixel_a=pixel_a,
    )


def write_record(
    directory: Path, name: str, images: Floats, *, pixel_a: float = PIXEL_A, score: float = 0.9, first: int = 0
) -> Path:
    """A record as the sink writes it, of the micrograph that ``picked`` makes."""
    micrograph = picked(name, len(images), score=score, first=first, pixel_a=pixel_a, path=directory)
    found, record = micrograph.candidates, Record(micrograph, name.removesuffix(".mrc"), 0.5)
    path = Places(directory).record(name)
    write_whole(path, encode(record, Images(images, found.x, found.y, found.score, pixel_a), now()))
    return path


class Blur:
    """Takes noise off by blurring; ``calls`` counts images."""

    def __init__(self, sigma: float = 2.0, name: str = "blur") -> None:
        self.sigma, self.name, self.sha256 = sigma, name, (name * 64)[:64]
        self.calls = 0

    def warm_up(self) -> str:
        """Nothing to do."""
        return "ready"

    def __call__(self, images: Floats) -> Floats:
        """(n, 64, 64) to the same, blurred."""
        self.calls += len(images)
        found: Floats = ndimage.gaussian_filter(images, (0, self.sigma, self.sigma))
        return found


class Blurring(torch.nn.Module):
    """The same as a network: (n, 1, 64, 64) to the same, ``times`` blurred with a small box."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.register_buffer("kernel", torch.full((1, 1, 3, 3), 1 / 9))
        self.kernel: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Blurred images."""
        for _ in range(self.times):
            images = torch.nn.functional.conv2d(images, self.kernel, padding=1)
        return images


def blur_bundle(directory: Path, name: str = "blur", times: int = 4) -> Path:
    """A bundle of task classes2d that needs no training; gives the path of its .pt file."""
    with quiet_torchscript():
        module: torch.jit.ScriptModule = torch.jit.script(Blurring(times).eval())
    card = {
        "version": "1",
        "task": "classes2d",
        "input": {"name": "particle", "shape": [1, 64, 64], "dtype": "float32", "normalisation": "mean 0, s.d. 1"},
        "output": {"classes": ["denoised"], "kind": "images"},
        "threshold": 0,
        "training": {"method": "none"},
        "scores": {},
        "trained_by": "nobody",
        "licence": "Apache-2.0",
        "tolerance": {"float32": 1e-3, "bfloat16": 0.1},
    }
    return save_bundle(directory, name, module, card)


@dataclass
class Clock:
    """Stands still until somebody moves it."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@dataclass
class Session:
    """The work on a session's classes, driven by hand."""

    directory: Path
    settings: ClassSettings = field(default_factory=lambda: ClassSettings(number=6, first_at=60, per_class=20))
    denoiser: Any = field(default_factory=Blur)
    formats: tuple[Any, ...] = ()
    loads: dict[str, Any] = field(default_factory=dict)
    tuning: Any = None
    clock: Any = field(default_factory=Clock)
    wall: Callable[[], float] | None = None
    every_s: float = 5.0
    pictures: bool = False

    def __post_init__(self) -> None:
        """Build all parts; nothing is read yet."""
        wall = self.wall or self.clock
        self.facts = Classed()
        base = Loaded(self.denoiser, Path("base.pt"))
        self.picks = PickSettings(directory=self.directory, formats=self.formats)
        self.marks = ClassMarks(self.directory, wall)
        self.networks = Networks(base, self.load, self.facts, self.tuning, wall)
        self.store = Store(self.picks, Places(self.directory))
        if not self.pictures:
            # Drawing takes longer than all the rest.
            self.store.picture = lambda *_: None  # type: ignore[method-assign]
        self.work = ClassWork(
            self.settings, self.store, self.networks, self.marks, self.facts, clock=self.clock, wall=wall
        )
        self.keeping = Keeping(self.work, every_s=self.every_s, clock=self.clock, wall=wall)

    def load(self, path: str) -> Loaded:
        """A denoiser by its path."""
        from beamsieve.models.bundle import BundleError

        if path not in self.loads:
            raise BundleError("unknown", f"{path}: there is no such bundle")
        return Loaded(self.loads[path], Path(path))

    def begin(self) -> Session:
        """Read what there is."""
        self.directory.mkdir(parents=True, exist_ok=True)
        assert self.store.claim()
        self.work.begin()
        return self

    def settle(self, most: int = 5000) -> None:
        """Work until nothing is left."""
        self.work.look()
        for _ in range(most):
            worked = self.work.step()
            self.keeping.keep_up()
            if not worked:
                if self.work.idle:
                    break
                assert self.work.going_over is not None
                grouping = self.work.going_over._grouping
                if grouping is not None:
                    grouping._thread.join(20)
        else:
            raise AssertionError("the work has no end")
        self.clock.now += 10
        self.keeping.keep_up()

    def end(self) -> None:
        """As at the end of a daemon that has time."""
        self.keeping.last()
        self.work.end()

    def die(self) -> None:
        """As by SIGKILL: nothing is written; the kernel gives back the lock."""
        self.work.end()

    def labels(self) -> dict[str, npt.NDArray[np.int32]]:
        """Classes of the particles, by record."""
        assert self.work.book is not None
        return {file: entry.rows["class"].copy() for file, entry in self.work.book.entries.items()}

    def averaged(self) -> int:
        """Particles in the averages."""
        book = self.work.book
        return 0 if book is None else sum(book.averages.count(number) for number in book.averages.classes())


def purity(labels: npt.NDArray[Any], kinds: npt.NDArray[Any]) -> float:
    """Share of particles that are of the commonest shape of their class."""
    pairs = [np.bincount(kinds[labels == number], minlength=SHAPES).max() for number in np.unique(labels[labels > 0])]
    return float(sum(pairs)) / len(labels)
