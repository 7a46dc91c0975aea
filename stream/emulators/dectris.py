"""An emulated DECTRIS detector: sends series of frames over stream 1 or 2, at a chosen rate, with faults if wanted."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import zmq

from .compress import Compressor
from .dectris_messages import Blob, Parts, SeriesInfo, Writer, WriterV1, WriterV2
from .servers import refused
from .tally import Pace, Tally

Shot: TypeAlias = tuple[npt.NDArray[Any], Mapping[str, Any]]
_Coded: TypeAlias = tuple[npt.NDArray[Any], Blob, Mapping[str, Any]]

_SLICE_S = 0.1
_LINGER_MS = 2000


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, by image number: for tests of receivers.

    ``skip``: not sent; ``twice``: sent twice; ``corrupt``: bytes of its pixels are changed; ``cut``: the last half of
    the message is missing; ``restart_at``: before this image the detector restarts, and numbers from 0 again;
    ``no_start``, ``no_end``: the series begins or ends without saying so.
    """

    skip: frozenset[int] = frozenset()
    twice: frozenset[int] = frozenset()
    corrupt: frozenset[int] = frozenset()
    cut: frozenset[int] = frozenset()
    restart_at: int | None = None
    no_start: bool = False
    no_end: bool = False


@dataclass(slots=True, eq=False)
class DectrisEmulator:
    """Sends one series. Use ``run`` in a thread of yours, or as a context manager, which runs it in one of its own.

    ``frames``: arrays (y, x) of one shape and dtype, each with what is attached to its message as user data (may be
    empty; ``truth`` in it is counted by class, and sent only with ``send_user_data``). ``version`` 1 or 2.
    ``compression``: bslz4, lz4, bszstd (2 only) or none. ``rate_hz``: images per second on an absolute schedule, 0 = as
    fast as possible. ``when_full``: ``block`` waits for the receiver, ``drop`` leaves the image out and counts it.
    ``repeat``: compress this many frames once and send them over and over, ``images`` times in all (endlessly when that
    is 0). ``images`` limits a series in any case. ``facts`` overrides fields of ``SeriesInfo`` by name.
    """

    endpoint: str
    frames: Iterable[Shot]
    version: Literal[1, 2] = 2
    compression: str = "bslz4"
    rate_hz: float = 0.0
    images: int = 0
    repeat: int = 0
    when_full: Literal["block", "drop"] = "block"
    bind: bool = True
    hwm: int = 100
    series: int = 1
    flat: bool = False
    detail: Literal["none", "basic", "all"] = "all"
    send_user_data: bool = True
    faults: Faults = field(default_factory=Faults)
    facts: Mapping[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    finished: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _context: Any = None
    _socket: Any = None
    _thread: threading.Thread | None = None
    _error: BaseException | None = None

    def open(self) -> str:
        """Bind or connect; gives the address in use. Raises ``OSError`` with endpoint and remedy."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        try:
            self._socket.set(zmq.LINGER, _LINGER_MS)
            self._socket.set_hwm(self.hwm)
            (self._socket.bind if self.bind else self._socket.connect)(self.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise refused(error, self.endpoint, self.bind) from error
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)
        return self.endpoint

    def run(self, stop: threading.Event | None = None) -> Tally:
        """Send the series: start, images, end. Returns when all is handed to ZeroMQ, or ``stop`` is set."""
        stop = stop or self._stop
        if self._socket is None:
            self.open()
        self.tally.began = time.monotonic()
        with Compressor(self.compression) as compressor:
            shots = self._compressed(compressor)
            first = next(shots, None)
            if first is None:
                raise ValueError("no frames to send: give at least one")
            info = self._info(first[0])
            writer = self._begin(info, stop)
            self._send_images(writer, itertools.chain([first], shots), stop)
        return self.tally

    def close(self) -> None:
        """Close; what was sent goes on being delivered for up to two seconds."""
        if self._socket is not None:
            self._socket.close(linger=_LINGER_MS)
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def __enter__(self) -> DectrisEmulator:
        self.open()
        self._thread = threading.Thread(target=self._in_thread, name="dectris-emulator", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None and value is None:
            raise self._error

    def _in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._error = error
        finally:
            self.close()
            self.finished.set()

    def _compressed(self, compressor: Compressor) -> Iterator[_Coded]:
        """Frames, compressed when they are needed, or once where they repeat."""
        shots: Iterator[_Coded] = ((array, Blob.of(compressor.compress(array)), info) for array, info in self.frames)
        if self.repeat:
            shots = itertools.cycle(list(itertools.islice(shots, self.repeat)))
        return itertools.islice(shots, self.images) if self.images else shots

    def _info(self, array: npt.NDArray[Any]) -> SeriesInfo:
        y, x = array.shape
        facts = {"period_s": 1 / self.rate_hz if self.rate_hz else 1e-4, "images": self.images, **self.facts}
        return SeriesInfo(
            series=self.series, shape=(y, x), dtype=array.dtype, compression=self.compression,
            unique=uuid.uuid4().hex[:26].upper(), **facts,
        )  # fmt: skip

    def _begin(self, info: SeriesInfo, stop: threading.Event) -> Writer:
        writer: Writer = WriterV2(info) if self.version == 2 else WriterV1(info, detail=self.detail, flat=self.flat)
        if not self.faults.no_start:
            for message in writer.start():
                self._send(message, stop, wait=True)
        return writer

    def _send_images(self, writer: Writer, shots: Iterable[_Coded], stop: threading.Event) -> None:
        pace, faults, wait = Pace(self.rate_hz), self.faults, self.when_full == "block"
        faulty = faults != Faults()
        offset = 0
        info = getattr(writer, "info", None)
        for number, (_, pixels, user_data) in enumerate(shots):
            if stop.is_set():
                break
            if number == faults.restart_at and isinstance(info, SeriesInfo):
                writer = self._begin(replace(info, unique=uuid.uuid4().hex[:26].upper()), stop)
                offset = number
            if self.rate_hz:
                pace.wait(stop)
            blob = Blob.of(spoil(pixels.data)) if number in faults.corrupt else pixels
            message = writer.image(number - offset, blob, user_data if self.send_user_data else {})
            for wanted in self._with_faults(message, number) if faulty else (message,):
                if self._send(wanted, stop, wait):
                    self.tally.count((user_data,))
                else:
                    self.tally.dropped += 1
        if not faults.no_end:
            self._send(writer.end(), stop, wait=True)

    def _with_faults(self, message: Parts, number: int) -> list[Parts]:
        faults = self.faults
        if number in faults.skip:
            return []
        if number in faults.cut:
            message = [message[0][: len(message[0]) // 2]] if len(message) == 1 else message[: len(message) // 2]
        return [message, message] if number in faults.twice else [message]

    def _send(self, parts: Parts, stop: threading.Event, wait: bool) -> bool:
        """Hand one message to ZeroMQ. False: there was no room and we do not wait, or we were stopped waiting."""
        while True:
            try:
                self._socket.send_multipart(parts, zmq.NOBLOCK)
                return True
            except zmq.Again:
                if not wait or stop.is_set():
                    return False
                self._socket.poll(int(_SLICE_S * 1000), zmq.POLLOUT)


def spoil(data: bytes) -> bytes:
    """Change 64 bytes of pixels behind the 12 bytes of the compression's header, so that they cannot be decoded."""
    return data[:12] + bytes(byte ^ 0xFF for byte in data[12:76]) + data[76:]


def frames_of(stack: npt.NDArray[Any]) -> Iterator[Shot]:
    """Frames of a stack (n, y, x), without user data."""
    return ((np.asarray(frame), {}) for frame in stack)
