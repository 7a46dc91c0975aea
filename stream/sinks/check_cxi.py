"""Checks a file against CXI version 1.6, rule by rule, whoever wrote it.

Source: F. Maia, "The CXI File Format for Coherent X-ray Imaging", version 1.6; the section stands with each rule. The
rules that begin with ``ours`` are those of the files this program writes, and are applied to such files only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..flow.frame import BadData
from . import cxi_rules as cxi
from . import cxi_rules_detector as detector
from . import cxi_rules_ours as ours
from .cxi_contents import Contents, open_cxi, survey

Rule = Callable[[Contents], Iterator[tuple[str, str]]]

RULES: dict[str, tuple[str, Rule]] = {
    "links": ("every link leads to something (9.1)", cxi.links),
    "version": ("cxi_version is an integer, 100 times a version up to 1.6 (A.1)", cxi.version),
    "entries": ("number_of_entries is how many groups entry_N there are (A.1)", cxi.entries),
    "numbering": ("groups of one class are numbered from 1 on without gaps (2.3)", cxi.numbering),
    "data": ("every entry has a group data_N with a dataset data (A.4)", cxi.data_groups),
    "numeric": ("data are numbers, complex ones compounds of r and i (5.1)", cxi.numeric),
    "errors": ("errors and data_error have the shape of data (A.4, A.5)", cxi.errors),
    "axes": ("axes name every dimension: an implicit axis, or a dataset of that length beside it (9.1)", cxi.axes),
    "identifier": ("experiment_identifier is text, and no two images have the same (9.1)", cxi.identifier),
    "text": ("names, titles and descriptions are single strings (A)", cxi.text),
    "times": ("dates follow ISO 8601, with T and a time zone (6.2)", cxi.times),
    "time_order": ("end_time is not before start_time (A.6)", cxi.time_order),
    "units": ("energies, lengths and times are in joule, metre, second, or name their unit (6)", cxi.units),
    "mask": ("mask holds 32-bit integers, in the shape of data or of one image (A.5)", detector.mask),
    "geometry": (
        "corner_position, basis_vectors, translation, orientation have their sizes (8.2, A.7)",
        detector.geometry,
    ),
    "modules": ("module_identifier names each module once (9.3)", detector.modules),
    "score": ("score and tags end with one value per image; tags are 8-bit integers (A.5)", detector.score),
    "image": ("data_space and data_type are words of the format (A.8)", detector.image),
    "peaks": ("nPeaks counts peaks per image, and each list has room for them (A.14)", detector.peaks),
    "unit_cell": ("unit_cell is six numbers (A.15)", detector.unit_cell),
    "ours.lengths": ("every dataset per frame has number_of_frames entries", ours.lengths),
    "ours.weights": ("sampling_weight is 1 for hits, at least 1 for random misses", ours.weights),
    "ours.reasons": ("accepted_reason is hit for accepted frames, random_miss for the others", ours.reasons),
    "ours.scores": ("class_probabilities lie in 0..1 and add up to 1, or are unknown", ours.scores),
    "ours.model": ("model_id is a SHA-256 in hexadecimal, or empty", ours.model),
    "ours.frames": ("the first and the last frame can be read", ours.frames),
}
FILE_RULE = "file"
FILE_TEXT = "opens as HDF5 in all its parts, and its writer has closed it (2.1)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule in one place. ``detail`` says what is wrong; it is empty where nothing is."""

    rule: str
    where: str
    ok: bool
    detail: str = ""


def check(path: Path) -> list[Finding]:
    """Every rule that applies, in every place it applies to. Never raises for what is in the file."""
    with ExitStack() as stack:
        try:
            file, state = open_cxi(path, stack)
        except BadData as error:
            return [Finding(FILE_RULE, str(path), False, error.detail)]
        findings = [Finding(FILE_RULE, str(path), not state, state)]
        contents = survey(file)
        findings += [Finding(FILE_RULE, where, False, why) for where, why in contents.damaged.items()]
        for name, (_, rule) in RULES.items():
            findings += _apply(name, rule, contents)
        return findings


def _apply(name: str, rule: Rule, contents: Contents) -> Iterator[Finding]:
    try:
        for where, problem in rule(contents):
            yield Finding(name, where, not problem, problem)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        # A file may hold anything under any name; a rule that cannot even be applied is broken.
        yield Finding(name, "/", False, f"cannot be checked: {error}")
