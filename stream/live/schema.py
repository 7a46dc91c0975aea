"""What a snapshot of the page must look like, to hold pages and their stand-ins in tests to the same words.

A shape is a type, None, a tuple of shapes (one of them fits), a list of one shape (any number of such) or a mapping of
shapes by name; a name that ends in ``?`` may be missing. Names that are not in the shape are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

NUMBER = (int, float)
MAYBE = (int, float, None)
TEXT = (str, None)
SHARE = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
ESTIMATE = (None, {**SHARE, "n": int})
RATE = {"rate": MAYBE, "low": MAYBE, "high": MAYBE}
POINT = {"t": NUMBER, **RATE, "frames_per_s": MAYBE}

COMMON: Mapping[str, Any] = {
    "time": NUMBER,
    "beamline": str,
    "ready": bool,
    "problems": [str],
    "uptime_s": NUMBER,
    "counts": dict.fromkeys(("read", "accepted", "rejected", "failed", "dropped", "in_flight"), int),
    "losses": [{"kind": str, "reason": str, "count": int}],
    "speed": {"frames_per_s": MAYBE, "bytes_per_s": MAYBE},
    "latency_s": {"median": MAYBE, "p99": MAYBE},
    "stages": [{"name": str, "busy": NUMBER, "starved": NUMBER, "blocked": NUMBER}],
    "bottleneck": str,
    "queues": [{"name": str, "depth": int, "size": int}],
    "review": {"right": int, "wrong": int, "waiting": int, "purity": ESTIMATE, "recall": ESTIMATE},
}
CONTROLS: Mapping[str, Any] = {
    "threshold": {"value": MAYBE, "configured": MAYBE, "card": MAYBE, "floor": MAYBE},
    "writing": {"paused": bool, "file": TEXT},
    "run": {"name": str, "title": str, "since": MAYBE},
    "model": {"name?": str, "version?": str, "hash?": str, "device?": str, "dtype?": str},
    "models": [str],
    "candidate": (None, {"bundle": str, "state": str, "error": TEXT}),
    "changes": [{"time": NUMBER, "by": str, "what": str}],
}
HITS: Mapping[str, Any] = {
    "scores": {"edges": [NUMBER], "accepted": [int], "rejected": [int], "seconds": NUMBER},
    "what_if": {
        "threshold": [NUMBER],
        "kept_per_s": [MAYBE],
        "bytes_per_s": [MAYBE],
        "purity": [(None, [NUMBER])],
        "recall": [(None, [NUMBER])],
    },
    "hits": {"windows": [{"name": str, "seconds": NUMBER, "hits": int, "shots": int, **RATE}]},
    "classes": [{"label": str, "count": int, "per_s": MAYBE}],
    "points": [POINT],
    "powder": dict.fromkeys(("version", "hits", "misses", "of_hits", "of_misses"), int),
}
CLASSES: Mapping[str, Any] = {
    "version": int,
    "life": str,
    "state": str,
    **dict.fromkeys(("have", "need", "particles", "unlabelled", "rejected"), int),
    "pixel_a": MAYBE,
    "model": {"name": str, "sha256": str, "tuned": bool},
    "pass": (None, {"why": str, "done": int, "of": int}),
    "tuning": (None, {"state": str, "done": int, "of": int, "text": str}),
    "events": [{"time": NUMBER, "text": str}],
    "error": str,
    "list": [
        {
            **dict.fromkeys(("id", "count", "version"), int),
            **dict.fromkeys(("growth_per_min", "spread", "resolution_a"), MAYBE),
            **dict.fromkeys(("share", "since"), NUMBER),
            "mark": str,
        }
    ],
}
"""Of ``cryoem_picks``: the field ``classes``, null where there are none."""
PICTURE: Mapping[str, Any] = {
    **dict.fromkeys(("id", "group", "pixels", "key"), str),
    **dict.fromkeys(("w", "h"), int),
    **dict.fromkeys(("high", "time", "weight"), NUMBER),
    "score": MAYBE,
    "label": TEXT,
    "review": bool,
}


def hits_problems(snapshot: Mapping[str, Any]) -> list[str]:
    """What is wrong with a snapshot of ``xfel_hits``: one line for each, with the place; none when all is well."""
    problems = list(problems_of(snapshot, {**COMMON, **CONTROLS, **HITS}))
    scores, what_if = snapshot.get("scores", {}), snapshot.get("what_if", {})
    bins = len(scores.get("edges", ())) - 1
    problems += [f"scores.{n}: not one per bin" for n in ("accepted", "rejected") if len(scores.get(n, ())) != bins]
    thresholds = len(what_if.get("threshold", ()))
    return problems + [f"what_if.{name}: not one per threshold" for name, v in what_if.items() if len(v) != thresholds]


def problems_of(value: Any, shape: Any, place: str = "snapshot") -> Iterator[str]:
    """Where ``value`` departs from ``shape``."""
    if isinstance(shape, tuple):
        found = [list(problems_of(value, one, place)) for one in shape]
        if all(found):
            # The one that fits best departs deepest inside.
            yield max((lines[0] for lines in found), key=lambda line: len(line.split(":")[0]))
    elif isinstance(shape, Mapping):
        yield from _of_mapping(value, shape, place)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place}: {value!r:.60} is no list"
        else:
            for i, one in enumerate(value):
                yield from problems_of(one, shape[0], f"{place}[{i}]")
    elif shape is None:
        if value is not None:
            yield f"{place}: {value!r:.60} is not null"
    elif type(value) is not shape:
        yield f"{place}: {value!r:.60} is no {shape.__name__}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is not finite"


def _of_mapping(value: Any, shape: Mapping[str, Any], place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place}: {value!r:.60} is no object"
        return
    for name, one in shape.items():
        word = name.removesuffix("?")
        if word in value:
            yield from problems_of(value[word], one, f"{place}.{word}")
        elif word == name:
            yield f"{place}.{word}: missing"
