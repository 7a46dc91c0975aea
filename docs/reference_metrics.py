"""The page of metrics: what ``/metrics`` says, from a ``Metrics`` that has seen one of each fact."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from beamsieve.stream.decode.quality import NAMES as QUALITY
from beamsieve.stream.flow.channel import Channel
from beamsieve.stream.flow.classed import ClassCounts, Classed
from beamsieve.stream.flow.frame import Failure, Frame, Key, Outcome, Result
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import Mined, MinedTomogram
from beamsieve.stream.flow.yields import Waiting, Yield, Yields
from prometheus_client.core import Metric

STREAM = Path(__file__).parents[1] / "stream"
SPOKEN_IN = (
    "beamlines/*.py",
    "decode/*.py",
    "flow/*.py",
    "formats/*.py",
    "sources/**/*.py",
    "sinks/hdf5*.py",
    "sinks/picks/*.py",
    "sinks/tomograms/*.py",
)
_CALLS = {
    "event": ("event", 0),
    "BadData": ("reason", 0),
    "Failure": ("reason", 1),
    "Unusable": ("reason", 0),
    "_Refusal": ("reason", 0),
    "_wait": ("waiting", 1),
    "Waits": ("waiting", 1),
}
_DROPS = {"Discard": 1, "dropped": 0}

_HEAD = """# Metrics

*Written from the code by `make docs`; do not edit.*

`http://HOST:PORT/metrics` (`service.host`, `service.port`) speaks Prometheus' text format. Counters only grow while the
daemon runs; rates and the hit rate come from their increase:

```promql
sum(rate(beamsieve_verdicts_total{verdict="hit"}[1m])) / sum(rate(beamsieve_verdicts_total[1m]))
```

The books balance: `beamsieve_frames_read_total` is `sum(beamsieve_frames_total)` plus `beamsieve_frames_in_flight`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

WORDS: Mapping[str, Mapping[str, str]] = {
    "event": {
        "bad_name": "a file whose name is not text in the system's encoding; rename it",
        "bad_start": "a mask or flat field in a start message cannot be used",
        "changed_later": "a file that was done has other content now; it is a new revision, and picked again",
        "claim_lost": "another daemon took a file in work here, because this one seemed dead; that one's picks stand",
        "damaged": "a record of a recording has the wrong checksum and is left out (replay)",
        "disconnected": "the other side of the socket went away; ZeroMQ connects again by itself",
        "disk_full": "less than `files.min_free_gb` is free: nothing is kept from here on",
        "end_again": "a second end of a series that is over",
        "file_closed": "a file was finished and has its name",
        "file_failed": "a file could not be written; what was flushed in it stays",
        "folder_back": "the watched folder is there, after it was not",
        "folder_gone": "the watched folder is not there; the daemon waits for it",
        "foreign": "a message of a kind, or a train of sources, that is not for us",
        "joined_late": "images came of a series whose start we did not see; its mask and energy are unknown",
        "journal_error": "the journal could not be read or written; it is tried again",
        "late": "an image or train came after it was counted as missing",
        "lease_lost": "this daemon gave no sign of life for `source.lease_s`, and others may have taken its files",
        "missing": "numbers that were skipped: lost before they reached us, or taken by another receiver",
        "no_end": "a series was over without an end message",
        "no_folder_events": "the system gives no events of the folder; it is looked into every `source.poll_s`",
        "not_kept": "hits that were judged while a person had paused writing",
        "no_pulses": "a train without pulses, or with none of those selected",
        "page_bug": "a bug in what the live page shows; it stands still, the analysis goes on",
        "restart": "the sender began again, with numbers we had seen",
        "resumed": "a series that was thought to be over went on",
        "short": "images that a series announced and did not send",
        "start_again": "the same start once more, as senders with several sockets say it",
        "start_late": "the start of a series came after its first images",
        "stray_end": "an end of a series we do not know",
        "superseded": "the files of an earlier revision, or of another model, were kept under `….r0`, `….r1` …",
        "taken_over": "files of a daemon that died or fell silent were taken over",
        "truncated": "a recording ends in the middle of a record (replay)",
        "unreadable_folder": "a folder in the watched one cannot be read; let the daemon's user read it",
    },
    "reason": {
        "axes": "an array of a train does not have the axes that `source.axes` names",
        "bad_name": "a file whose name is not text in the system's encoding; rename it",
        "cbor": "a message is not the CBOR of a DECTRIS stream 2",
        "changed": "a micrograph changed while it was read; it is read again when it has settled",
        "channel": "no image of the channel `source.channel`",
        "chunks": "a volume's HDF5 is stored in chunks too large to read one by one; repack it",
        "classes": "`classes.h5` is damaged; remove it, and the particles are classified anew",
        "colour": "a picture in colour; save it in grey",
        "contents": "an HDF5 file holds no volume of three axes, or several; name one file per tomogram",
        "cut": "parts of a DECTRIS stream 1 message are missing",
        "decode": "the pixels of a TIFF, PNG or JPEG cannot be decoded",
        "decompress": "the pixels cannot be decompressed",
        "disk_full": "worth keeping, but there is no room (`files.min_free_gb`)",
        "dtype": "pixels of a type that cannot be used",
        "eer": "the events of an EER movie cannot be decoded",
        "empty": "no byte, or no page, was ever written",
        "encoding": "a compression that is not known",
        "field": "a field of a message is missing or has the wrong type",
        "file": "worth keeping, but the file cannot be written",
        "foreign": "not a message of this stream at all",
        "framing": "a karabo message of a wrong number of parts",
        "gain": "the gain reference cannot be used",
        "gain_shape": "the gain reference has another shape than the micrograph; the log says how to turn it",
        "geometry": "the geometry does not fit the frames",
        "hdf": "an HDF5 file that cannot be opened; is it whole?",
        "header": "a header, of a karabo message or of an image file, cannot be read",
        "image": "a micrograph that cannot be picked: no finite pixel, all pixels the same, or smaller than one box",
        "input": "the model's view lies off the detector: `detector.centre_px`, `detector.bin`",
        "json": "a part of a DECTRIS stream 1 message is not JSON",
        "key": "a property of the detector's source is missing: `source.image_key`, `source.cell_key`",
        "lost": "worth keeping, but in a file that failed before its next flush",
        "mask": "a mask that does not fit its frame",
        "mdoc": "an mdoc file cannot be read",
        "mode": "an MRC mode that is not read: packed 4-bit, complex, or unknown",
        "modules": "a source that is no module of the detector",
        "msgpack": "a part of a karabo message is not msgpack",
        "pages": "a movie's pages have different sizes, or are fewer than it says itself",
        "pixel_size": "a micrograph without a pixel size, in its header or beside it; state `decode.pixel_a`",
        "pulses": "pulse ids do not fit the array",
        "record": "the HDF5 file of a micrograph is damaged",
        "segment": "the tomogram was mined, and could not be segmented",
        "series": "an image of a series that was not started, while another one runs",
        "shape": "frames of a shape that does not fit the constants, or none at all",
        "size": "fewer or more bytes than the shape says; an image larger than `decode.max_image_mb`",
        "stack": "a stack of images, such as a tilt series, where a tomogram was expected (`decode.stacks`)",
        "train_id": "a train without a number",
        "truncated": "a file ends before its header says",
        "values": "too many pixels of a micrograph are no numbers",
        "vanished": "a file was removed, or made unreadable, before it was read",
        "volume": "a tomogram that cannot be mined: smaller than a box, constant, or too many voxels without a number",
        "voxel": "the size of voxels is not known or not the same along all axes; set `decode.voxel_a`",
        "write": "the name of a micrograph cannot be the name of a file where picks are written",
        "xml": "an XML file cannot be read",
    },
    "waiting": {
        "changing": "size, time or inode changed less than `source.settle_s` ago: it is being written",
        "companion": "its XML or mdoc is not there, or has not settled (`source.companions`)",
        "empty": "no byte was written yet",
        "frames": "fewer frames than it says, its mdoc or XML says, or the session has (`source.frames`)",
        "gone": "it is no longer there",
        "in_work": "it changed while its older content is in work",
        "longer": "more bytes than its header says; taken with a flag after `source.doubt_s`",
        "queued": "complete; enough others are in work (`source.claims`)",
        "retry": "it failed, and is tried again after `source.retry_s`",
        "settling": "seen for less than `source.settle_s`, and the same since",
        "truncated": "fewer bytes than its header says; set aside after `source.incomplete_s`",
        "unreadable": "the daemon's user may not read it",
        "unusable": "its name is not text in the system's encoding; rename it",
        "zero_tail": "it ends in zeros, as files do that are allocated and not yet written; taken with a flag after "
        "`source.doubt_s`",
    },
    "drop": {
        "abort": "in flight when the grace period was over, or when the daemon failed",
        "duplicate": "came before, under the same number",
        "full": "the oldest in the first queue when a new one came and there was no room (`flow.queue`)",
        "stale": "an image of a series that is over",
        "stopped": "a tomogram in work when the daemon was stopped; the next start takes it again",
    },
}
_TITLES = {
    "event": "Kinds of `beamsieve_source_events_total`",
    "reason": "Reasons of `beamsieve_frames_failed_total`",
    "waiting": "Reasons of `beamsieve_waiting_files`",
    "drop": "Reasons of `beamsieve_frames_dropped_total`",
}
_BELOW = {
    "waiting": "A file that stays the same and incomplete for `source.incomplete_s` fails for the reason that it "
    "waited for. A file whose header cannot be read waits under the reason that reading it would fail with: it may "
    "still be written."
}


def metrics() -> str:
    """The whole page."""
    parts = [list(seen.collect()) for seen in (specimen(), picked(), classified(), mined())]
    # What waits is told by both kinds of folders, and is one metric.
    families: dict[str, Metric] = {}
    for part in parts:
        for family in part:
            families.setdefault(family.name, family)
    rows = "\n".join(map(_row, families.values()))
    return _HEAD + rows + "\n\n" + "\n".join(_words(of, spoken()[of]) for of in WORDS)


def specimen() -> Metrics:
    """The metrics of a daemon that has seen one of each fact."""
    seen = Metrics("xfel_hits", ("0", "1", "2", "3", "4+"))
    seen.channel(Channel("source", 1))
    seen.model(name="hits-resnet10", version="1", hash="0123456789ab", device="cpu", dtype="float32")
    frame = Frame(Key("1", 0), np.zeros((1, 1), np.uint16), arrived=0.0, wall=0.0)
    results = [
        Result(frame, Outcome.ACCEPTED, 0.9, "model", 1.0, {"label": 1}),
        Result(frame, Outcome.REJECTED, 0.0, "prescreen", 100.0),
    ]
    seen.read(len(results) + 2, 1)
    seen.judged(results)
    seen.ended(results)
    seen.failed(Failure(frame.key, "shape", ""))
    seen.dropped("full", 1)
    seen.event("missing")
    seen.stage("source").starved(1.0)
    seen.operation.threshold = lambda: 0.5
    seen.operation.free_bytes = lambda: 1e12
    seen.operation.run("1", "lysozyme, jet 2")
    seen.operation.shadowed((a, b) for a in (True, False) for b in (True, False))
    return seen


def picked() -> Yields:
    """The yields of a daemon that has seen one micrograph."""
    seen = Yields()
    stages = dict.fromkeys(("read", "quality", "prepare", "score", "peaks", "extract"), 1.0)
    outside = ("carbon_fraction",)
    seen.add(Yield(1, (0.9,), dict.fromkeys(QUALITY, 0.0), stages, outside, outside))
    seen.wait(Waiting({"settling": 1}, 1.0))
    return seen


def classified() -> Classed:
    """The classes of a daemon that has made some."""
    seen = Classed()
    seen.counted(ClassCounts({"unmarked": 1}, {"unmarked": 100}, 20.0, 20.0))
    seen.classified([1.0])
    seen.model("classes2d-general", "0123456789ab", tuned=False)
    return seen


def mined() -> Mined:
    """The facts of a daemon that has mined one tomogram."""
    seen = Mined()
    stages = dict.fromkeys(("statistics", "pick", "boxes", "pose", "encode", "segment"), 1.0)
    seen.add(MinedTomogram({"": 1, "membrane": 1}, 0.4, stages, "0123456789ab", {"background": 0.9, "membrane": 0.1}))
    seen.clusters({"": 99, "membrane": 1})
    seen.model("tomograms-general", "0123456789ab", trained=False)
    return seen


def spoken() -> dict[str, set[str]]:
    """The short fixed words that parts of the daemon tell facts with, read from their source code."""
    found: dict[str, set[str]] = {name: set() for name in WORDS}
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign):
                found["waiting"] |= set(_reasons(node))
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            of, at = _CALLS.get(name, ("drop", _DROPS.get(name, -1)))
            if 0 <= at < len(node.args):
                found[of] |= set(_texts(node.args[at]))
    return found


def _modules() -> Iterator[Path]:
    for pattern in SPOKEN_IN:
        yield from sorted(STREAM.glob(pattern))


def _reasons(node: ast.Assign) -> Iterator[str]:
    """The texts that are assigned to an attribute ``reason``, alone or with others in one line."""
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for name, value in pairs:
            if isinstance(name, ast.Attribute) and name.attr == "reason":
                yield from _texts(value)


def _texts(node: ast.expr) -> Iterator[str]:
    """The texts an expression can be: itself, or either side of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    if family.type == "histogram":
        name += "` + `_bucket`, `_sum`, `_count"
    labels: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label != "le" and value not in labels.setdefault(label, []):
                labels[label].append(value)
    shown = "; ".join(f"`{label}`: {', '.join(values)}" for label, values in labels.items())
    return f"| `{name}` | {family.type} | {shown} | {family.documentation} |"


def _words(of: str, words: Iterable[str]) -> str:
    lines = [f"## {_TITLES[of]}\n", "| word | meaning |", "|---|---|"]
    lines += [f"| `{word}` | {WORDS[of].get(word, '(not described)')} |" for word in sorted(words)]
    lines += ["", _BELOW[of]] if of in _BELOW else []
    return "\n".join(lines) + "\n"
