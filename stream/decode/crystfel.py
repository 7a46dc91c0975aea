"""Reads CrystFEL's ``.geom`` files: where each panel's pixels lie in the data and in space, and which are bad.

Written from the format's manual, crystfel_geometry(5): ``parameter = value`` sets what panels *first mentioned
later* start with, ``panel/parameter = value`` one panel's own, names in ``bad…`` are regions to leave out, ``;``
starts a comment.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .layout import BadRegion, GeometryError, Layout, MaskBits, Panel
from .scattering import PLANCK_EV_M

_RANGE = ("min_fs", "max_fs", "min_ss", "max_ss")
_NEEDED = (*_RANGE, "corner_x", "corner_y", "fs", "ss", "res")
_NUMBERS = ("corner_x", "corner_y", "coffset", "res", "adu_per_eV", "adu_per_photon", "max_adu")
_WORDS = ("no_index", "badrow_direction", "data", "clen", "photon_energy", "wavelength", "mask", "mask_file")
_KNOWN = (*_RANGE, *_NUMBERS, *_WORDS, "fs", "ss", "mask_good", "mask_bad")
_TERM = re.compile(r"([+-]?)(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|)([xyz])")
_MASK = re.compile(r"mask(\d?)(?:_(data|file|goodbits|badbits|good|bad))?$")
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")
_UNITS = {"m": 1.0, "mm": 1e-3, "A": 1e-10, "eV": 1.0, "keV": 1e3, "": 1.0}


@dataclass(slots=True)
class _Fields:
    """The values of one panel, region or of the top level, with the lines they came from."""

    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _Fields:
        return _Fields(dict(self.values), dict(self.lines))


def read_geometry(path: Path) -> Layout:
    """Read a ``.geom`` file. Raises ``GeometryError`` with every problem, ``OSError`` where it cannot be opened."""
    return _Reader(path).read(path.read_text(encoding="utf-8", errors="replace"))


class _Reader:
    """One file on its way to a ``Layout``; collects problems instead of stopping at the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.top = _Fields()
        self.panels: dict[str, _Fields] = {}
        self.regions: dict[str, _Fields] = {}

    def read(self, text: str) -> Layout:
        for number, line in enumerate(text.splitlines(), 1):
            self._line(number, line.split(";", 1)[0].strip())
        if not self.panels:
            self._problem(None, "panels", "none defined", "name at least one, as in 0/min_fs = 0")
        panels = [panel for name in self.panels if (panel := self._panel(name)) is not None]
        regions = [region for name in self.regions if (region := self._region(name)) is not None]
        layout = Layout(
            self.path,
            self._shape(panels),
            tuple(panels),
            tuple(regions),
            tuple(self._masks()),
            self._distance(),
            self._photon_energy(),
        )
        if self.problems:
            raise GeometryError(self.problems)
        return layout

    def _problem(self, line: int | None, name: str, what: str, remedy: str) -> None:
        where = f"{self.path.name}:{line}" if line else self.path.name
        self.problems.append(f"{where}: {name}: {what}; {remedy}")

    def _line(self, number: int, text: str) -> None:
        if not text:
            return
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            self._problem(number, text[:40], "not of the form parameter = value", "write a comment after ;")
            return
        if name.startswith(("rigid_group", "group")):
            return
        owner, slash, key = name.rpartition("/")
        if not slash:
            place = self.top
        elif owner.startswith("bad"):
            place = self.regions.setdefault(owner, _Fields())
        else:
            if owner not in self.panels:
                self.panels[owner] = self.top.copy()
            place = self.panels[owner]
        near = difflib.get_close_matches(key, _KNOWN, 1, 0.85)
        if slash and not owner.startswith("bad") and key not in _KNOWN and near and not _MASK.match(key):
            self._problem(number, name, "unknown", f"did you mean {near[0]}?")
        place.values[key], place.lines[key] = value, number

    def _number(self, fields: _Fields, owner: str, key: str) -> float:
        """The value of a field as a number, NaN (and a problem) where it is none."""
        text = fields.values[key]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self._problem(fields.lines[key], f"{owner}/{key}", f"{text!r} is no number", "write a number")
            return math.nan
        return value

    def _panel(self, name: str) -> Panel | None:
        fields, before = self.panels[name], len(self.problems)
        for key in _NEEDED:
            if key not in fields.values:
                self._problem(None, f"{name}/{key}", "missing", "add it, for this panel or before all panels")
        if len(self.problems) > before:
            return None
        slices = self._slices(name, fields)
        corner = [self._number(fields, name, key) for key in ("corner_x", "corner_y")]
        res = self._number(fields, name, "res")
        if res <= 0:
            self._problem(fields.lines["res"], f"{name}/res", f"{res:g}", "give pixels per metre, above 0")
        offset = self._number(fields, name, "coffset") if "coffset" in fields.values else 0.0
        fs, ss = self._vector(name, fields, "fs"), self._vector(name, fields, "ss")
        if len(self.problems) > before:
            return None
        if math.dist(_cross(fs, ss), (0, 0, 0)) < 1e-3:
            self._problem(fields.lines["ss"], f"{name}/ss", "fs and ss span no area", "give two directions")
            return None
        return Panel(
            name,
            slices,
            (corner[0] / res, corner[1] / res, offset),
            _scaled(fs, 1 / res),
            _scaled(ss, 1 / res),
            res,
            fields.values.get("no_index", "0").lower() not in ("0", "false"),
        )

    def _slices(self, name: str, fields: _Fields) -> tuple[int | slice, ...]:
        low_fs, high_fs, low_ss, high_ss = (self._whole(fields, name, key) for key in _RANGE)
        for axis, low, high in (("fs", low_fs, high_fs), ("ss", low_ss, high_ss)):
            if not 0 <= low <= high:
                line = fields.lines[f"max_{axis}"]
                self._problem(line, f"{name}/max_{axis}", f"range {low} to {high}", "give 0 <= min <= max, inclusive")
        axes = {int(key[3:]): key for key in fields.values if re.fullmatch(r"dim\d", key)}
        words = [(fields.values[axes[number]], fields.lines[axes[number]]) for number in sorted(axes)]
        if not words:
            words = [("ss", 0), ("fs", 0)]
        slices: list[int | slice] = []
        for word, line in words:
            if word in ("ss", "fs"):
                slices.append(slice(low_ss, high_ss + 1) if word == "ss" else slice(low_fs, high_fs + 1))
            elif word.isdigit():
                slices.append(int(word))
            elif word != "%":
                self._problem(line, f"{name}/dim", f"{word!r}", "write %, ss, fs or an index")
        if [word for word, _ in words if word in ("ss", "fs")] != ["ss", "fs"] or words[-1][0] != "fs":
            self._problem(words[-1][1], f"{name}/dim", "axes are not (…, ss, fs)", "let ss, fs be the last two")
        return tuple(slices)

    def _whole(self, fields: _Fields, owner: str, key: str) -> int:
        value = self._number(fields, owner, key)
        if not math.isnan(value) and not value.is_integer():
            self._problem(fields.lines[key], f"{owner}/{key}", f"{value:g} is no pixel", "write a whole number")
        return 0 if math.isnan(value) else int(value)

    def _vector(self, name: str, fields: _Fields, key: str) -> tuple[float, float, float]:
        text = re.sub(r"\s+", "", fields.values[key])
        vector = {"x": 0.0, "y": 0.0, "z": 0.0}
        terms = list(_TERM.finditer(text))
        if not terms or "".join(term.group() for term in terms) != text:
            what = f"{text!r} is no direction"
            self._problem(fields.lines[key], f"{name}/{key}", what, "write one like +0.01x -0.99y")
        for term in terms:
            sign, size, axis = term.groups()
            vector[axis] += float(size or 1) * (-1 if sign == "-" else 1)
        return vector["x"], vector["y"], vector["z"]

    def _region(self, name: str) -> BadRegion | None:
        fields, before = self.regions[name], len(self.problems)
        laboratory = any(key in fields.values for key in ("min_x", "max_x", "min_y", "max_y"))
        axes = ("x", "y") if laboratory else ("ss", "fs")
        if laboratory and any(key in fields.values for key in _RANGE):
            self._problem(None, name, "mixes x, y with fs, ss", "use one of them")
        bounds = []
        for axis in axes:
            for key in (f"min_{axis}", f"max_{axis}"):
                if key not in fields.values:
                    self._problem(None, f"{name}/{key}", "missing", "add it")
            if len(self.problems) > before:
                return None
            low, high = (self._number(fields, name, f"{end}_{axis}") for end in ("min", "max"))
            bounds.append((low, high))
        panel = fields.values.get("panel")
        if panel is not None and panel not in self.panels:
            self._problem(fields.lines["panel"], f"{name}/panel", f"no panel {panel!r}", "name a panel of this file")
        return None if len(self.problems) > before else BadRegion(name, laboratory, (bounds[0], bounds[1]), panel)

    def _masks(self) -> list[MaskBits]:
        parts: dict[int, dict[str, str]] = {}
        for owner, fields in (("", self.top), *self.panels.items()):
            for key, value in fields.values.items():
                match = _MASK.match(key)
                if match:
                    word = {"good": "goodbits", "bad": "badbits", None: "data"}.get(match[2], match[2])
                    found = parts.setdefault(int(match[1] or 0), {}).setdefault(word, value)
                    if found != value:
                        name = f"{owner}/{key}"
                        self._problem(fields.lines[key], name, "differs between panels", "give one for all panels")
        masks = []
        for number, part in sorted(parts.items()):
            if "file" not in part:
                continue  # the mask comes with the data, and the sender tells it
            good, bad = (self._bits(f"mask{number}_{word}", part.get(word, "0")) for word in ("goodbits", "badbits"))
            masks.append(MaskBits(f"{part['file']}:{part.get('data', '/data/data')}", good, bad))
        return masks

    def _bits(self, name: str, text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            self._problem(None, name, f"{text!r} is no number", "write bits like 0xff")
            return 0

    def _distance(self) -> float | None:
        for fields in (self.top, *self.panels.values()):
            if "clen" in fields.values:
                return self._quantity(fields, "clen", ("m", "mm"))
        return None

    def _photon_energy(self) -> float | None:
        if "wavelength" in self.top.values:
            wavelength = self._quantity(self.top, "wavelength", ("m", "A"))
            return PLANCK_EV_M / wavelength if wavelength else None
        return self._quantity(self.top, "photon_energy", ("eV", "keV")) if "photon_energy" in self.top.values else None

    def _quantity(self, fields: _Fields, key: str, units: tuple[str, ...]) -> float | None:
        """A positive number with a unit, in SI or eV; None where the value is a place in the data."""
        text = fields.values[key]
        match = _QUANTITY.fullmatch(text)
        if not match:
            return None
        value = float(match[1])
        if not value > 0 or match[2] not in ("", *units):
            self._problem(fields.lines[key], key, f"{text!r}", f"give a number above 0 in {' or '.join(units)}")
            return None
        return value * _UNITS[match[2]]

    def _shape(self, panels: Sequence[Panel]) -> tuple[int, ...]:
        if len({len(panel.slices) for panel in panels}) > 1:
            self._problem(None, "dim", "panels have arrays of different dimensions", "give all panels the same dims")
            return ()
        ends = [[index.stop if isinstance(index, slice) else index + 1 for index in panel.slices] for panel in panels]
        return tuple(max(column) for column in zip(*ends, strict=True))


def _cross(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _scaled(vector: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return vector[0] * factor, vector[1] * factor, vector[2] * factor
