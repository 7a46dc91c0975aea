"""The settings block ``classes``: particles denoised and sorted into 2-D classes while they are picked."""

from __future__ import annotations

from pydantic import Field

from ..flow.settings import Settings


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
