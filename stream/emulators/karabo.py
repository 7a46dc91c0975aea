"""An emulated karabo-bridge: trains of shots, or single camera images, in every protocol version.

The bytes follow the ``karabo-bridge`` serializer (2.2, 1.0) and its description of the older versions (2.1, 2.0).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt

from .frames import Shot
from .servers import Part, Server, Side
from .tally import Pace, Tally

Protocol: TypeAlias = Literal["1.0", "2.0", "2.1", "2.2"]
Data: TypeAlias = Mapping[str, Mapping[str, Any]]

FIRST_TRAIN = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """How shots become a train.

    ``pulses`` shots per train; 0: one image per message, as a camera sends it. ``order``: ``online`` (module, fs, ss,
    pulse) or ``file`` (pulse, module, ss, fs). ``modules``: an image (y, x) is cut into so many modules along y.
    ``split``: one source per module, named by ``source`` with its first ``*`` replaced by the module's number; they
    have no module axis.
    """

    source: str = "SPB_DET_AGIPD1M-1/CAL/APPEND_CORRECTED"
    image_key: str = "image.data"
    pulses: int = 64
    order: Literal["online", "file"] = "online"
    modules: int = 1
    split: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, as chances per train: not sent (a gap), sent twice, damaged, a module missing (split layouts).

    ``restart_every`` trains the ids begin again, as after a restart of the sender (0: never).
    """

    drop: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    lose_module: float = 0.0
    restart_every: int = 0
    seed: int = 0


@dataclass(slots=True)
class KaraboEmulator:
    """Sends trains made of ``frames`` on one socket. ``open``, then ``run`` in any thread, then ``close`` in it.

    A train that nobody takes before the next one is due is dropped, as a bridge in front of a detector does it, unless
    ``wait`` or ``rate_hz`` is 0: then it is kept until it is taken. ``rate_hz`` counts trains.
    """

    endpoint: str
    frames: Iterator[Shot]
    layout: Layout = field(default_factory=Layout)
    side: Side = "rep"
    protocol: Protocol = "2.2"
    rate_hz: float = 10.0
    wait: bool = False
    bind: bool = True
    faults: Faults = field(default_factory=Faults)
    first_train: int = FIRST_TRAIN
    tally: Tally = field(default_factory=Tally)
    _server: Server | None = None

    def open(self) -> str:
        """Bind (or connect), and return the address in use. Raises ``OSError`` with endpoint and remedy."""
        self._server = Server(self.endpoint, self.side, self.bind)
        return self._server.endpoint

    def close(self) -> None:
        """Close the socket; trains already sent go on being delivered for up to two seconds."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def run(
        self,
        stop: threading.Event,
        seconds: float | None = None,
        frames: int | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> Tally:
        """Send until ``stop`` is set, ``seconds`` are over, ``frames`` shots are sent, or there are no more shots."""
        assert self._server is not None, "run before open"
        rng, pace = np.random.default_rng(self.faults.seed), Pace(self.rate_hz)
        deadline = None if seconds is None else time.monotonic() + seconds
        self.tally.began = time.monotonic()
        for number, shots in enumerate(self._trains(frames)):
            due = pace.wait(stop)
            if stop.is_set() or (deadline is not None and time.monotonic() >= deadline):
                break
            until = deadline if self.wait or not self.rate_hz else due
            self._send(self._numbered(number), shots, rng, stop, until)
            progress(self.tally)
        return self.tally

    def _trains(self, frames: int | None) -> Iterator[list[Shot]]:
        per_train = max(self.layout.pulses, 1)
        shots = self.frames if frames is None else islice(self.frames, frames)
        while train := list(islice(shots, per_train)):
            yield train

    def _numbered(self, number: int) -> int:
        return self.first_train + (number % self.faults.restart_every if self.faults.restart_every else number)

    def _send(
        self, train_id: int, shots: list[Shot], rng: np.random.Generator, stop: threading.Event, until: float | None
    ) -> None:
        assert self._server is not None
        drop, twice, corrupt, lose, which = rng.random(5)
        data = train_data(self.layout, [image for image, _ in shots], train_id)
        if lose < self.faults.lose_module and len(data) > 1:
            data = {name: data[name] for i, name in enumerate(data) if i != int(which * len(data))}
        parts = encode(data, metadata_of(data, train_id, time.time()), self.protocol)
        if corrupt < self.faults.corrupt:
            parts = damaged(parts, which)
        if drop < self.faults.drop or not self._server.send(parts, stop, until):
            self.tally.dropped += len(shots)
            return
        self.tally.count(info for _, info in shots)
        if twice < self.faults.duplicate:
            self._server.send(parts, stop, until)


def train_data(layout: Layout, images: Sequence[npt.NDArray[Any]], train_id: int) -> dict[str, dict[str, Any]]:
    """One train's sources. ``images``: shots (y, x) or (module, ss, fs), one for a camera."""
    if layout.pulses == 0:
        return {layout.source: {layout.image_key: np.ascontiguousarray(images[0])}}
    train = np.stack(images)
    if layout.modules > 1 and train.ndim == 3:
        if train.shape[1] % layout.modules:
            raise ValueError(f"{train.shape[1]} rows cannot be cut into {layout.modules} modules")
        train = train.reshape(len(train), layout.modules, -1, train.shape[-1])
    if not layout.split:
        return {layout.source: _values(layout, _ordered(train, layout.order), len(images), train_id)}
    return {
        layout.source.replace("*", str(m), 1): _values(
            layout, _ordered(train[:, m], layout.order), len(images), train_id
        )
        for m in range(train.shape[1])
    }


def metadata_of(data: Data, train_id: int, now: float) -> dict[str, dict[str, Any]]:
    """Per source what the bridge says of a train taken at ``now`` (seconds since 1970)."""
    seconds, _, fraction = f"{now:.6f}".partition(".")
    return {
        source: {
            "source": source,
            "timestamp": now,
            "timestamp.sec": seconds,
            "timestamp.frac": fraction.ljust(18, "0"),
            "timestamp.tid": train_id,
        }
        for source in data
    }


def encode(data: Data, metadata: Data, protocol: Protocol = "2.2") -> list[Part]:
    """One train as message parts. Arrays are not copied in 2.x: they must not change until they are sent."""
    if protocol == "1.0":
        whole = {source: {**values, "metadata": dict(metadata[source])} for source, values in data.items()}
        return [msgpack.packb(whole, default=_numpy_map)]
    parts: list[Part] = []
    for source in sorted(data):
        arrays = {k: v for k, v in data[source].items() if isinstance(v, np.ndarray)}
        values = {k: v for k, v in data[source].items() if k not in arrays}
        header: dict[str, Any] = {"source": source, "content": "msgpack"}
        if protocol == "2.2":
            header["metadata"] = metadata[source]
        elif protocol == "2.1":
            values |= {f"metadata.{k}": v for k, v in metadata[source].items()}
        else:
            values["metadata"] = metadata[source]
        parts += [msgpack.packb(header), msgpack.packb(values)]
        for key, array in arrays.items():
            header = {"source": source, "content": "array", "path": key, "dtype": str(array.dtype)}
            parts += [msgpack.packb({**header, "shape": array.shape}), np.ascontiguousarray(array).data]
    return parts


def damaged(parts: Sequence[Part], where: float) -> list[Part]:
    """The message with its longest part cut in half (``where`` < 0.5), or its first part overwritten with 0xC1."""
    broken = list(parts)
    if where < 0.5:
        longest = max(range(len(broken)), key=lambda i: memoryview(broken[i]).nbytes)
        broken[longest] = bytes(broken[longest])[: memoryview(broken[longest]).nbytes // 2]
    else:
        broken[0] = b"\xc1" * memoryview(broken[0]).nbytes  # the one byte msgpack never uses
    return broken


def _ordered(train: npt.NDArray[Any], order: str) -> npt.NDArray[Any]:
    """(pulse, [module,] ss, fs) in the order asked for: online is ([module,] fs, ss, pulse)."""
    if order == "file":
        return train
    return np.ascontiguousarray(train.transpose((1, 3, 2, 0) if train.ndim == 4 else (2, 1, 0)))


def _values(layout: Layout, train: npt.NDArray[Any], pulses: int, train_id: int) -> dict[str, Any]:
    prefix = layout.image_key.rpartition(".")[0] or "image"
    return {
        layout.image_key: train,
        f"{prefix}.cellId": np.arange(pulses, dtype=np.uint16),
        f"{prefix}.pulseId": np.arange(pulses, dtype=np.uint64),
        f"{prefix}.trainId": np.full(pulses, train_id, np.uint64),
        "modulesPresent": [True] * layout.modules,
    }


def _numpy_map(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} is not sent in a train")
    data = np.ascontiguousarray(value)
    return {b"nd": True, b"type": data.dtype.str, b"kind": b"", b"shape": data.shape, b"data": data.data}
