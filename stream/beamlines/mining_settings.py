"""Settings of mining tomograms: the blocks ``model``, ``clusters`` and ``segment``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..flow.settings import Settings


class MinerSettings(Settings):
    """The network that encodes sub-volumes, and where sub-volumes are taken."""

    bundle: str = Field("tomograms-posed", description="name of a bundle, or the path of its .pt file")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, le=256, description="CPU threads of the mining; default: one per core")
    posed: bool | None = Field(
        None,
        description="turn each sub-volume to its principal axes before it is encoded: like shapes fall together "
        "whichever way they lie; default: as the network was trained",
    )
    threshold: float = Field(
        2.5, ge=0, le=100, description="maxima of the difference of Gaussians from this many standard deviations on"
    )
    smooth: float = Field(2.0, ge=0, description="standard deviation of the Gaussian that smooths, in `unit`")
    sigma: float = Field(5.0, gt=0, description="standard deviation of the narrower of the two Gaussians, in `unit`")
    ratio: float = Field(1.1, gt=1, le=4, description="the wider of the two Gaussians over the narrower")
    distance: float = Field(10.0, gt=0, description="sub-volumes are at least this far apart, in `unit`")
    unit: Literal["voxels", "nm"] = Field(
        "voxels", description="of smooth, sigma and distance: voxels of the network (its card's pixel_a), or nanometres"
    )


class ClusterSettings(Settings):
    """Groups of sub-volumes that look alike, made and made anew in the background."""

    number: int = Field(100, ge=2, le=400, description="clusters; fewer while there are fewer than two members each")
    first_at: int = Field(500, ge=10, description="sub-volumes that the first clusters are made of")
    growth: float = Field(
        2.0, ge=1.1, le=100, description="make clusters anew when there are this many times as many sub-volumes as then"
    )
    most: int = Field(200_000, ge=1000, description="codes that clusters are made of, at most; of more, a sample")
    retrain: bool = Field(True, description="train the network further on the session's own sub-volumes")
    retrain_at: int = Field(2000, ge=50, description="kept sub-volumes from which on that is tried")
    retrain_epochs: int = Field(20, ge=1, le=1000, description="epochs of that, at most: it stops early")
    keep_per_tomogram: int = Field(
        200, ge=0, description="sub-volumes kept of each tomogram for training, chosen at random"
    )
    keep_most: int = Field(20_000, ge=100, description="sub-volumes that a training uses, at most")


class SegmentSettings(Settings):
    """A class for every voxel, once clusters are marked."""

    on: bool = Field(True, description="train a segmentation network on marked clusters, and segment what comes then")
    bundle: str = Field("", description="a segmentation network that is there already, instead of training one")
    start: str = Field(
        "auto",
        description="a segmentation network whose hidden layers its training begins with; auto: the one that ships, "
        "where voxels are of its size; none: random weights, as published",
    )
    train_most: int = Field(1000, ge=10, description="windows of tomograms that it is trained on, at most")
    epochs: int = Field(60, ge=1, le=1000, description="epochs of its training, at most: it stops early")
    threads: int = Field(1, ge=1, le=64, description="CPU threads of its training, which gives way to the mining")
    minutes: float = Field(15.0, ge=0, description="after which its training ends with the best so far; 0: no limit")

    @property
    def starts_from(self) -> str:
        """The bundle that ``start`` names, empty where it names none."""
        return "" if self.start in {"auto", "none"} else self.start
