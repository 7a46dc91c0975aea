"""What an emulated microscope has written: which micrographs, in which manner, and what is true of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .micrograph_files import Centre

MANNERS: Mapping[str, str] = {
    "changed": "overwritten by another exposure after a while",
    "truncated": "cut short, and never finished",
    "preallocated": "as large as it will be from the start, zeros at its end until it is filled",
    "renamed": "written under another name with .tmp, and renamed at the end",
    "late": "its XML or mdoc comes after a while",
    "empty": "no particles on it",
    "carbon": "a third of it and more on carbon",
}


@dataclass(slots=True)
class Dropped:
    """What was written so far. Names are paths below the folder, with forward slashes."""

    written: list[str] = field(default_factory=list)
    by_manner: dict[str, list[str]] = field(default_factory=lambda: {manner: [] for manner in MANNERS})
    truth: dict[str, tuple[Centre, ...]] = field(default_factory=dict)

    @property
    def particles(self) -> int:
        """Particles on the micrographs as they now are; those on one that was cut short do not count."""
        return sum(kind == "particle" for centres in self.truth.values() for _, _, kind, _ in centres)

    def report(self) -> dict[str, Any]:
        """For ``--json``: how many were written, which of them in which manner, how many particles are on them."""
        return {"written": len(self.written), **self.by_manner, "particles": self.particles}

    def write_truth(self, path: Path | None) -> None:
        """Write the particles into ``path`` and everything else into ``others_file``, whole; None: nowhere."""
        if path is None:
            return
        for file, wanted in ((path, True), (others_file(path), False)):
            rows = [
                (name, f"{x:.2f}", f"{y:.2f}", kind, view)
                for name, centres in self.truth.items()
                for x, y, kind, view in centres
                if (kind == "particle") is wanted
            ]
            beside = file.with_name(file.name + ".tmp")
            beside.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", newline="", encoding="utf-8") as lines:
                csv.writer(lines).writerows([("micrograph", "x", "y", "kind", "view"), *rows])
            beside.replace(file)


def others_file(truth: Path) -> Path:
    """Where the centres of what should not be picked go: ``truth-others.csv`` beside ``truth.csv``."""
    return truth.with_name(f"{truth.stem}-others{truth.suffix}")
