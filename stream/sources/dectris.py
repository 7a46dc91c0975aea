"""DECTRIS detectors: SIMPLON stream 1 and stream 2, told apart by their first bytes; Jungfraujoch's stream too."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..flow.frame import BadData, Encoded, Failure, Incoming, Key, Raw
from ..flow.ports import Facts
from ..flow.turns import TURNS
from .receiver import Receiver
from .series import Book
from .sockets import SocketSettings
from .wire import dectris_v1, dectris_v2
from .wire.messages import End, Foreign, Image, Message, Start

_BRACE = ord("{")
_PLANCK_C = 6.62607015e-34 * 299_792_458  # J m (exact, SI 2019)
_V2_BEGINS = re.compile(rb"(?:\xd9\xd9\xf7)?(?:[\xa0-\xb7]|\xb8.|\xb9..|\xbf)\x64type", re.DOTALL)


class DectrisSettings(SocketSettings):
    """A DECTRIS detector's stream, version 1 or 2, as it is detected."""

    kind: Literal["dectris"] = Field("dectris", description="stream 1 and stream 2, told apart by what comes")
    pattern: Literal["pull", "sub"] = Field("pull", description="pull: every image once; sub: a preview that may drop")
    hwm: int = Field(200, ge=1, description="messages ZeroMQ may hold for us before the sender waits or drops")
    max_message_mb: int = Field(
        512, ge=1, description="a message part longer than this closes the connection (10^6 bytes)"
    )
    channel: str = Field("", description="threshold to analyse, such as threshold_2; empty: the first one")
    shared: bool = Field(
        False, description="other receivers take images of the same sender: gaps are normal and not counted as missing"
    )
    series_idle_s: float = Field(300.0, gt=0, description="a series without an image for so long is over")
    stale_s: float = Field(30.0, ge=0, description="images of a series that ended less than this ago are stale")
    reorder_window: int = Field(64, ge=1, description="an image is missing once one so much later has come")


class Assembler:
    """Messages in, runs and images out: everything of the source but the socket.

    Not thread-safe. Times are passed in: ``arrived`` as ``time.monotonic()``, ``wall`` as ``time.time()``.
    """

    def __init__(self, settings: DectrisSettings, facts: Facts) -> None:
        self._channel = settings.channel
        self._facts = facts
        self._book = Book(facts, settings.shared, settings.reorder_window, settings.stale_s)
        self._v1 = dectris_v1.Codec()
        self._v2 = dectris_v2.Codec()
        self._first_channel = ""
        self._count = 0

    def take(self, parts: Sequence[memoryview], arrived: float, wall: float, out: list[Incoming]) -> None:
        """Read one ZeroMQ message, and append what it amounts to. Never raises for what it holds."""
        self._count += 1
        try:
            if self._is_v1(parts):
                for message in self._v1.feed(parts):
                    if isinstance(message, dectris_v1.Fault):
                        out.append(self._fault(message, parts))
                    else:
                        self._take(message, parts, arrived, wall, out)
            elif len(parts) > 1:
                raise BadData("foreign", f"{len(parts)} parts, first {bytes(parts[0][:8])!r}: not a DECTRIS stream")
            else:
                self._take(self._v2.parse(parts[0]), parts, arrived, wall, out)
        except BadData as error:
            out.append(self._failure(Key(self._run(), -1), error, parts))

    def idle(self, now: float) -> list[Incoming]:
        """End the open run because nothing has come for long."""
        marks = self._book.close("idle", now)
        if marks:
            self._facts.event("no_end")
        return list(marks)

    def _is_v1(self, parts: Sequence[memoryview]) -> bool:
        first = parts[0]
        if len(first) and first[0] == _BRACE:
            return True
        return self._v1.pending and len(parts) == 1 and _V2_BEGINS.match(first) is None

    def _take(
        self, message: Message, parts: Sequence[memoryview], arrived: float, wall: float, out: list[Incoming]
    ) -> None:
        if isinstance(message, Image):
            marks, key = self._book.image((message.series, message.unique), message.number, arrived)
            out += marks
            if not isinstance(key, Key):
                known = BadData(key.reason, key.detail) if isinstance(key, Failure) else None
                out.append(key if known is None else self._failure(key.key, known, parts))
                return
            try:
                encoded = self._pick(message.images)
            except BadData as error:
                out.append(self._failure(key, error, parts))
                return
            out.append(Raw(key, encoded, arrived, wall, info=message.info, message=tuple(parts)))
        elif isinstance(message, Start):
            if message.problems:
                self._facts.event("bad_start", len(message.problems))
            channels = message.info.get("channels") or ()
            self._first_channel = channels[0] if channels else ""
            out += self._book.start((message.series, message.unique), self._info(message), arrived)
        elif isinstance(message, End):
            out += self._book.end((message.series, message.unique), arrived)
        else:
            assert isinstance(message, Foreign)
            self._facts.event("foreign")

    def _pick(self, images: Mapping[str, Encoded]) -> Encoded:
        """The channel to analyse: the one configured, else the first that the start named, else the first one here."""
        wanted = self._channel or self._first_channel
        if wanted in images:
            return images[wanted]
        if self._channel and "" not in images:
            raise BadData("channel", f"no channel {self._channel!r}; there are {', '.join(images)[:80]}")
        return next((images[name] for name in images if name != "difference"), next(iter(images.values())))

    def _info(self, start: Start) -> Mapping[str, Any]:
        """What the start said, with the constants of the channel to analyse instead of those of all."""
        info = dict(start.info)
        for name in ("pixel_mask", "flatfield"):
            arrays = info[name]
            wanted = self._channel or self._first_channel
            info[name] = arrays.get(wanted, next(iter(arrays.values()), None))
        mask = info["pixel_mask"]
        info["pixel_mask"] = None if mask is None else mask.astype(np.uint32, copy=False)
        for one, other in (("energy_J", "wavelength_m"), ("wavelength_m", "energy_J")):
            if one not in info and info.get(other, 0) > 0:
                info[one] = _PLANCK_C / info[other]
        if "error_value" not in info and str(info.get("dtype")).startswith("uint"):
            info["error_value"] = int(np.iinfo(info["dtype"]).max)
        if start.problems:
            info["problems"] = start.problems
        return info

    def _run(self) -> str:
        return self._book.open.run if self._book.open is not None else ""

    def _fault(self, fault: dectris_v1.Fault, parts: Sequence[memoryview]) -> Failure:
        known = fault.series >= 0 and fault.number >= 0
        run = self._book.failed(fault.series, fault.number) if known else self._run()
        return self._failure(Key(run, fault.number), fault.error, parts)

    def _failure(self, key: Key, error: BadData, parts: Sequence[memoryview]) -> Failure:
        return Failure(key, error.reason, f"message {self._count}: {error.detail}", raw=tuple(parts))


class DectrisSource:
    """Receives a DECTRIS stream; see ``Source`` in ports.py for who calls what.

    Delivery is at most once: what is in the queues when the daemon stops is gone. Image counts as the detector numbers
    them; events told: ``missing`` (gaps), ``late`` (came after it was counted missing), ``joined_late``, ``restart``,
    ``resumed``, ``no_end``, ``short`` (the series ended before the images it announced), ``start_again``,
    ``start_late`` (the start came after images), ``end_again``, ``stray_end``, ``bad_start`` (a mask or flat field that
    cannot be used), ``foreign``, ``disconnected``.

    ``RunStart.info`` (each where the sender says it): ``energy_J``, ``wavelength_m``, ``distance_m``,
    ``x_pixel_size_m``, ``y_pixel_size_m``, ``beam_center_x_px``, ``beam_center_y_px``, ``image_size`` (y, x),
    ``dtype``, ``saturation_value``, ``error_value``, ``exposure_s``, ``frame_s``, ``sensor_material``,
    ``sensor_thickness_m``, ``threshold_energy_J`` (channel: J), ``images_expected``, ``detector``,
    ``detector_serial``, ``arm_date``, ``user_data``, ``channels``, ``series``, ``series_unique_id``, ``problems``; and
    always ``pixel_mask`` (uint32 (y, x), DECTRIS's bits) and ``flatfield`` (float32 (y, x)), None where there is none.
    Empty when we joined late.
    ``Raw.info``: ``start_s``, ``stop_s``, ``real_s`` (since the series began), ``series_date``, ``user_data``.
    """

    def __init__(self, settings: DectrisSettings, facts: Facts) -> None:
        self._idle_s = settings.series_idle_s
        self._receiver = Receiver(settings, settings.pattern, facts)
        self._assembler = Assembler(settings, facts)
        self._heard = time.monotonic()

    @property
    def endpoint(self) -> str:
        """The address in use; where port 0 or * was asked for, the one that was found."""
        return self._receiver.endpoint

    def open(self) -> None:
        """Connect or bind; raises ``OSError`` with endpoint and remedy."""
        self._receiver.open()
        self._heard = time.monotonic()

    def read(self, timeout: float) -> Sequence[Incoming] | None:
        """Wait up to ``timeout`` seconds for a message, then give all that has come, within ``Receiver``'s bounds."""
        out: list[Incoming] = []
        messages = self._receiver.receive(timeout)
        if messages:
            with TURNS:
                for parts, arrived, wall in messages:
                    self._assembler.take(parts, arrived, wall, out)
        now = time.monotonic()
        if messages:
            self._heard = now
        elif now - self._heard > self._idle_s:
            return self._assembler.idle(now)
        return out

    def done(self, keys: Sequence[Key]) -> None:
        """A stream has nothing to confirm."""

    def close(self) -> None:
        """Close the socket; what is still queued in it is lost."""
        self._receiver.close()
