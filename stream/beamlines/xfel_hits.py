"""xfel_hits: how many particles did each X-ray pulse hit? From a detector's stream to hit rates and CXI files.

    source ─▶ decode ─▶ screen ─▶ group ─▶ model ─▶ decide ─▶ files

``decode`` makes calibrated frames, ``screen`` (if asked for) rejects the empty ones by their lit pixels, the network
says how many particles were in the beam, and the frames with exactly one are kept, with a random share of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...models.bundle import Bundle, BundleError, bundle_at, load_bundle
from ...models.hits.infer import CLASSES
from ..decode.calibrate import CalibrateSettings, ConstantsError
from ..decode.frames import Decode, DetectorSettings
from ..decode.layout import GeometryError
from ..errors import plain
from ..flow.channel import WhenFull
from ..flow.infer import Infer
from ..flow.life import ServiceSettings
from ..flow.metrics import Metrics
from ..flow.pipeline import Pipeline
from ..flow.ports import Apart, Source
from ..flow.settings import ConfigError, Settings, Where
from ..flow.stages import Each, Stage
from ..live.changes import Changes
from ..live.control import Control
from ..sinks.failures import FailureLog
from ..sinks.hdf5 import Hdf5Settings, Hdf5Sink
from ..sinks.hdf5_room import room_in
from ..sources.dectris import DectrisSettings, DectrisSource
from ..sources.karabo import KaraboSettings, KaraboSource
from ..sources.replay import ReplaySettings, ReplaySource
from .candidates import Candidates, marks_in
from .classify import Classify, ModelSettings
from .control_hits import HitLevers
from .hits import Keep, KeepSettings, Screen, ScreenSettings, View
from .looks import Looks
from .page_hits import HitsPage

MODULES = "missing; frames of {shape} have modules: name the .geom file that places them, or set model: null"


class FlowSettings(Settings):
    """Queues and threads."""

    queue: int = Field(4096, ge=1, description="shots the queue behind the source holds; later ones hold up to 1024")
    queue_mb: int = Field(512, ge=1, description="no queue holds more than about this (10^6 bytes)")
    when_full: WhenFull = Field(WhenFull.DROP_OLDEST, description="what the first queue does when it is full")
    burst: int = Field(256, ge=1, description="most shots decoded at once; fewer when they are large")
    workers: int = Field(1, ge=1, le=64, description="threads that decode")


SourceSettings = Annotated[DectrisSettings | KaraboSettings | ReplaySettings, Field(discriminator="kind")]


class XfelHits(Settings):
    """Settings of the daemon ``xfel_hits``."""

    beamline: Literal["xfel_hits"] = Field(description="which daemon this file is for")
    source: SourceSettings = Field(description="the detector's stream")
    calibrate: CalibrateSettings = Field(CalibrateSettings(), description="from the sender's numbers to photons")
    detector: DetectorSettings = Field(DetectorSettings(), description="shape, geometry, and the model's view of it")
    screen: ScreenSettings | None = Field(None, description="lit-pixel pre-screen; alone (model: null) a hit finder")
    model: ModelSettings | None = Field(ModelSettings(), description="the network; null: lit pixels decide")
    keep: KeepSettings = Field(KeepSettings(), description="what is kept beside the hits")
    files: Hdf5Settings = Field(description="where accepted frames go")
    flow: FlowSettings = Field(FlowSettings(), description="queues and threads")
    service: ServiceSettings = Field(ServiceSettings(), description="metrics, readiness, stopping")

    @model_validator(mode="after")
    def _somebody_decides(self) -> XfelHits:
        if self.screen is None and self.model is None:
            raise ValueError("nobody decides: give screen, model or both")
        return self


@dataclass(frozen=True, slots=True)
class Daemon:
    """What ``build`` made: the pipeline, and the parts a summary asks."""

    pipeline: Pipeline
    files: Hdf5Sink
    failures: FailureLog
    model: str
    page: HitsPage | None
    token: Path

    def healthy(self) -> str | None:
        """Why frames cannot be kept, or None."""
        return self.files.healthy()

    def close(self) -> None:
        """Close the log of failures, once the pipeline is over."""
        self.failures.close()


def build(settings: XfelHits, where: Where, config: str = "") -> Daemon:
    """Put the daemon together. Raises ``ConfigError`` for what the settings name and does not exist or fit.

    Opens no socket and writes no file. ``config`` is the text of the configuration, kept in every file.
    """
    mistakes: list[str] = []
    base = where.base
    decode = attempt(mistakes, where, lambda: Decode(settings.calibrate, settings.detector, base))
    view = attempt(mistakes, where, lambda: View(settings.detector, base, decode.shape if decode else None))
    bundle = attempt(mistakes, where, lambda: _bundle(settings.model, base)) if settings.model else None
    source = settings.source.at(base)
    mistakes += [where("source", *place) + why for place, why in source.mistakes()]
    metrics = Metrics("xfel_hits", CLASSES)
    keep = Keep(settings.keep, metrics)
    model: Classify | None = None
    if settings.model and bundle and decode and view:
        if decode.shape and len(decode.shape) > 2 and settings.detector.geometry.file is None:
            mistakes.append(where("detector", "geometry", "file") + MODULES.format(shape=decode.shape))
        model = attempt(mistakes, where, lambda: Classify(settings.model, bundle, decode, view, keep))
    if mistakes:
        raise ConfigError(mistakes)
    stages: list[Stage] = [Each("decode", decode, workers=settings.flow.workers, burst=settings.flow.burst)]
    if settings.screen:
        screen = Screen(settings.screen, decode, keep, alone=settings.model is None)
        stages.append(Each("screen", screen, burst=settings.flow.burst))
    directory = base / settings.files.directory
    changes = Changes(directory, metrics.operation)
    files = Hdf5Sink(settings.files, metrics, config=config, base=base, changes=changes)
    metrics.on_failure = failures = FailureLog(directory, settings.keep.failures)
    if settings.model and model:
        stages.append(Infer("model", model, size=settings.model.batch, wait_s=settings.model.wait_ms / 1000))
    candidates = (
        Candidates("hits", directory, settings.model.bundle, bundle.path) if settings.model and bundle else None
    )
    levers = HitLevers(model, candidates, keep, files, lambda title, now: pipeline.new_run(title, now=now), metrics)
    control = Control(levers, metrics, changes)
    looks = Looks(settings.detector, base, decode.mask_of)
    page = _page(settings, where, metrics, control, directory, model, looks)
    metrics.operation.free_bytes = lambda: room_in(directory)

    def warm_up() -> None:
        files.open()
        if model is not None:
            model.warm_up(metrics)
        control.restore()

    pipeline = Pipeline(
        open_source(source, metrics),
        stages,
        [files] if page is None else [files, Apart(page.watch, metrics)],
        metrics,
        queue=settings.flow.queue,
        queue_bytes=settings.flow.queue_mb * 10**6,
        when_full=settings.flow.when_full,
        flush_s=settings.files.flush_s,
        warm_up=warm_up,
    )
    token = settings.service.token_at(base, directory)
    return Daemon(pipeline, files, failures, bundle.card.name if bundle else "lit pixels", page, token)


def _page(
    settings: XfelHits,
    where: Where,
    metrics: Metrics,
    control: Control,
    directory: Path,
    model: Classify | None,
    looks: Looks,
) -> HitsPage | None:
    if not settings.service.page:
        return None
    return HitsPage(
        metrics=metrics,
        controls=control,
        marks=marks_in(directory, where),
        directory=directory,
        to_input=None if model is None else model.input_of,
        labels=CLASSES,
        looks=looks,
    )


def attempt(mistakes: list[str], where: Where, make: Any) -> Any:
    """Call ``make``; what the settings are to blame for goes into ``mistakes`` with its place in the file."""
    try:
        return make()
    except BundleError as error:
        field = "device" if error.reason == "device" else "bundle"
        mistakes.append(where("model", field) + error.detail.removeprefix(f"{field}: "))
    except ConstantsError as error:
        mistakes += [where("calibrate") + problem for problem in error.problems]
    except GeometryError as error:
        mistakes += [where("detector", "geometry", "file") + problem for problem in error.problems]
    except OSError as error:
        mistakes.append(where("detector", "geometry", "file") + f"{plain(error)}; name an existing .geom file")
    return None


def _bundle(settings: ModelSettings, base: Path) -> Bundle:
    bundle = load_bundle(bundle_at(settings.bundle, base))
    bundle.expect(task="hits", classes=CLASSES)
    return bundle


def open_source(settings: DectrisSettings | KaraboSettings | ReplaySettings, metrics: Metrics) -> Source:
    """The source of that kind."""
    if isinstance(settings, KaraboSettings):
        return KaraboSource(settings, metrics)
    if isinstance(settings, ReplaySettings):
        return ReplaySource(settings, metrics)
    return DectrisSource(settings, metrics)
