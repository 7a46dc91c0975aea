"""What could not be used is kept, with its reason, and can be replayed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from beamsieve.stream.flow.frame import Encoded, Failure, Key, Raw
from beamsieve.stream.recording import Reader
from beamsieve.stream.sinks.failures import FailureLog


def failure(number: int, *parts: bytes) -> Failure:
    return Failure(Key("r", number), "decompress", f"message {number}: cut", raw=tuple(parts))


def test_the_first_failures_are_kept_and_no_more(tmp_path: Path) -> None:
    log = FailureLog(tmp_path / "new", limit=3)
    for i in range(5):
        log(failure(i, b"head", bytes([i]) * 10))
    log.close()
    lines, recording = log.paths
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["key"] for line in said] == ["r:0", "r:1", "r:2"]
    assert said[1] == {"key": "r:1", "shots": 1, "reason": "decompress", "detail": "message 1: cut", "record": 1}
    assert [record.parts for record in Reader(recording)] == [(b"head", bytes([i]) * 10) for i in range(3)]


def test_a_decoded_message_is_kept_as_it_came(tmp_path: Path) -> None:
    log = FailureLog(tmp_path, limit=3)
    raw = Raw(
        Key("r", 1), Encoded(b"xy", (1, 1), np.dtype("<u2")), 0.0, 0.0, message=(b"whole", memoryview(b"message"))
    )
    log(Failure(raw.key, "shape", "?", raw=raw))
    log(Failure(raw.key, "shape", "a frame of unknown origin"))
    log.close()
    assert [record.parts for record in Reader(log.paths[1])] == [(b"whole", b"message")]
    assert len(log.paths[0].read_text().splitlines()) == 2


def test_large_messages_and_full_disks_cost_the_log_only(tmp_path: Path) -> None:
    log = FailureLog(tmp_path, limit=3, max_mb=0)
    log(failure(1, b"too large for nothing"))
    assert [path.suffix for path in log.paths] == [".jsonl"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    log = FailureLog(blocked, limit=3)
    log(failure(1, b"x"))
    assert not log.paths


def test_no_failure_no_file(tmp_path: Path) -> None:
    FailureLog(tmp_path, limit=3).close()
    assert not list(tmp_path.iterdir())
