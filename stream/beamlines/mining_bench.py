"""What tomograms are mined with at a moment: the network, the clusters, the segmentation. Replaced, never changed."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...models.bundle import Bundle, BundleError, bundle_at, load_bundle
from ...models.tomograms.book import Clusters
from ...models.tomograms.bundles import expect_kind
from ...models.tomograms.codec import Codec
from ...models.tomograms.groups import Groups
from ...models.tomograms.segment import Segmenter
from ..flow.metrics import Metrics
from .mining_settings import MinerSettings, SegmentSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """``trained``: the network was trained further on this session. ``marks``: of what the segmentation was trained on
    (``mining_marks.key_of``), empty where the configuration names it.
    """  # noqa: D205 - one sentence a field

    codec: Codec
    trained: bool = False
    clusters: Clusters | None = None
    segmenter: Segmenter | None = None
    marks: str = ""

    @property
    def assigns(self) -> Clusters | None:
        """The clusters, where they are of this network's codes."""
        return self.clusters if self.clusters is not None and self.clusters.network == self.codec.sha256 else None

    def segments(self, groups: Groups) -> Segmenter | None:
        """The segmentation, where its label values are those of the groups; a configured one has its own."""
        found = self.segmenter
        if found is None or (self.marks and tuple(found.classes) != groups.classes):
            return None
        return found if groups or not self.marks else None


class Benches:
    """The bench in force. Any thread."""

    def __init__(self, first: Bench, metrics: Metrics) -> None:
        self._now, self._metrics = first, metrics
        self._lock = threading.Lock()

    @property
    def now(self) -> Bench:
        """The one in force."""
        return self._now

    def put(self, **changes: Any) -> Bench:
        """From now on this is another."""
        with self._lock:
            self._now = replace(self._now, **changes)
            found = self._now
        if "codec" in changes:
            self.tell()
        return found

    def tell(self) -> None:
        """Say which network encodes."""
        bench, codec = self._now, self._now.codec
        card = codec.bundle.card
        self._metrics.model(
            name=card.name, version=card.version, hash=card.sha256[:12], device=str(codec.device), dtype="float32"
        )
        if self._metrics.mined is not None:
            self._metrics.mined.model(codec.name, codec.sha256, trained=bench.trained)


def load_codec(settings: MinerSettings, name_or_path: str, base: Path = Path()) -> Codec:
    """An autoencoder, not yet warm. Raises ``BundleError``."""
    bundle = load_bundle(bundle_at(name_or_path, base))
    return Codec(expect_kind(bundle, "codes"), device=settings.device, threads=settings.threads)


def load_segmenter(settings: MinerSettings, name_or_path: str, voxel_a: float, base: Path = Path()) -> Segmenter:
    """A segmentation for voxels of ``voxel_a``, not yet warm. Raises ``BundleError``."""
    bundle: Bundle = expect_kind(load_bundle(bundle_at(name_or_path, base)), "voxels")
    found = Segmenter(bundle, device=settings.device, threads=settings.threads)
    if abs(found.voxel_a / voxel_a - 1) > 1e-3:
        detail = f"{bundle.path}: is for voxels of {found.voxel_a:g} Å, the network that encodes for {voxel_a:g} Å"
        raise BundleError("pixel_size", detail)
    return found


def configured_segmenter(settings: SegmentSettings, model: MinerSettings, voxel_a: float, base: Path) -> Any:
    """The segmentation that the configuration names, None where it names none. Raises ``BundleError``.

    One that a training begins with is looked at, too: it shall not fail in the middle of the night.
    """
    if settings.on and settings.starts_from:
        load_segmenter(model, settings.starts_from, voxel_a, base)
    return load_segmenter(model, settings.bundle, voxel_a, base) if settings.on and settings.bundle else None
