"""The settings block ``classes``: particles denoised and sorted into 2-D classes while they are picked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ...models.bundle import bundle_at, load_bundle
from ...models.classes2d.denoise import Denoiser
from ..flow.settings import Settings
from .class_book import Denoises


class ClassSettings(Settings):
    """2-D classes of the particles, while the session runs."""

    on: bool | None = Field(
        None, description="sort particles into 2-D classes; default: where particles are kept (files.particles.keep)"
    )
    bundle: str = Field("classes2d-general", description="network that denoises: name of a bundle, or path of its .pt")
    number: int = Field(32, ge=2, le=200, description="most classes at a time")
    first_at: int = Field(200, ge=10, le=100_000, description="particles that the first classes are made of")
    per_class: int = Field(25, ge=2, le=10_000, description="fewer particles than this per class make fewer classes")
    growth: float = Field(
        2.0, ge=1.1, le=100, description="make classes anew when there are this many times as many particles as then"
    )
    finetune: bool = Field(True, description="train the network further on the session's own particles")
    finetune_at: int = Field(2000, ge=100, description="particles from which on that is tried")
    finetune_most: int = Field(4000, ge=100, description="particles that it is trained on, at most")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int = Field(1, ge=1, le=64, description="CPU threads of the network")
    montage_every: int = Field(
        500, ge=1, description="particles between two versions of classes.png, the picture of all class averages"
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A denoiser, and the bundle that it runs. ``path``: of its file."""

    denoiser: Denoises
    path: Path


def is_on(settings: ClassSettings, keeps: bool) -> bool:
    """Whether particles are classified. ``keeps``: they are kept. Raises ``ValueError`` where it is in vain."""
    if settings.on and not keeps:
        raise ValueError("particles are not kept, and classes are made of them; set files.particles.keep: true")
    return keeps if settings.on is None else settings.on


def load_denoiser(name_or_path: str, settings: ClassSettings, base: Path = Path()) -> Loaded:
    """A bundle as a denoiser, not yet warm. Raises ``BundleError``."""
    bundle = load_bundle(bundle_at(name_or_path, base))
    return Loaded(Denoiser(bundle, device=settings.device, threads=settings.threads), bundle.path)


def ready_denoiser(path: str, settings: ClassSettings) -> Loaded:
    """As ``load_denoiser``, and warm. Raises ``BundleError``."""
    found = load_denoiser(path, settings)
    found.denoiser.warm_up()
    return found
