"""One karabo train to one message of the pipeline: find the detector, check its axes, stack its modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ..flow.frame import BadData, Encoded
from .axes import extent, read_axes
from .train_settings import TrainSettings, is_pattern, parse_ids
from .wire.karabo import Device, Train, Unusable, integers


@dataclass(frozen=True, slots=True)
class Reading:
    """The detector's part of a train. ``pulses`` are the selected ones, at the positions ``select`` (None: all)."""

    image: Encoded
    axes: tuple[str, ...]
    mask: Encoded | None
    count: int
    pulses: tuple[int, ...]
    info: Mapping[str, Any] = field(default_factory=dict)


class TrainReader:
    """Finds the detector in trains. It remembers the first train's module shape, where none is configured."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self._pattern = is_pattern(settings.source)
        self._number = re.compile(settings.module_pattern)
        self._pulses, self._cells = parse_ids(settings.pulses), parse_ids(settings.cells)
        self._values = {name: (text.split()[0], text.split()[1]) for name, text in settings.values.items()}
        self._also = {source for source, _ in self._values.values()}
        self._module_shape = settings.module_shape

    def is_detector(self, source: str) -> bool:
        """Whether ``source`` is the detector or one of its modules."""
        return fnmatchcase(source, self._settings.source) if self._pattern else source == self._settings.source

    def wanted(self, source: str) -> bool:
        """Whether anything of ``source`` is used."""
        return source in self._also or self.is_detector(source)

    def train_id(self, train: Train) -> int | None:
        """The number most of the detector's sources agree on; None where none says."""
        ids = [d.train_id() for name, d in train.devices.items() if self.is_detector(name)]
        counted = Counter(tid for tid in ids if tid is not None)
        return counted.most_common(1)[0][0] if counted else None

    def read(self, train: Train, train_id: int) -> Reading:
        """Pick the pixels, pulses and masks. ``count`` is 0 for a train without pulses, or with none selected.

        Raises ``BadData``: ``key`` (a property is missing), ``axes``, ``modules``, ``pulses``, ``shape``, or what the
        codec found wrong with the array (``dtype``, ``shape``, ``size``).
        """
        devices = {name: d for name, d in train.devices.items() if self.is_detector(name)}
        info: dict[str, Any] = {}
        if self._pattern:
            found = self._by_number({n: d for n, d in devices.items() if d.train_id() in (None, train_id)})
            first, image, axes, mask, missing = self._stack(found)
            if missing:
                info["missing_modules"] = missing
        else:
            first = devices[self._settings.source]
            image = self._image(first, self._settings.source)
            axes = self._axes(image)
            mask = self._mask(first, image, axes)
        info |= {"axes": axes, "timestamp": first.timestamp()}
        for name, (source, key) in self._values.items():
            if (value := value_of(train, source, key)) is not None:
                info[name] = value
        return self._select(first, image, axes, mask, info)

    def _image(self, device: Device, name: str) -> Encoded:
        image = device.arrays.get(self._settings.image_key)
        if isinstance(image, Unusable):
            raise BadData(image.reason, image.detail)
        if image is None:
            there = ", ".join(sorted(device.arrays)[:8]) or "no arrays"
            raise BadData("key", f"{name} has no array {self._settings.image_key!r}, but {there}: correct image_key")
        return image

    def _axes(self, image: Encoded, one_module: bool = False) -> tuple[str, ...]:
        s = self._settings
        axes = read_axes(s.axes, image.shape, one_module or s.modules == 1, self._module_shape)
        modules = extent("module", axes, image.shape)
        if not one_module and s.modules not in (None, modules or 1):
            raise BadData(
                "axes",
                f"array of shape {image.shape} read as {' '.join(axes)!r} has {modules or 1} modules, expected "
                f"{s.modules}: correct axes or modules",
            )
        if self._module_shape is None:
            self._module_shape = (image.shape[axes.index("ss")], image.shape[axes.index("fs")])
        return axes

    def _mask(self, device: Device, image: Encoded, axes: tuple[str, ...]) -> Encoded | None:
        mask = device.arrays.get(self._settings.mask_key) if self._settings.mask_key else None
        if mask is None:
            return None
        if isinstance(mask, Unusable):
            raise BadData("mask", mask.detail)
        if mask.shape != image.shape or mask.dtype.kind not in "iub":
            raise BadData(
                "mask",
                f"{self._settings.mask_key}: {mask.dtype} {mask.shape} is no mask of an array of shape {image.shape}; "
                f"axes {' '.join(axes)}: set mask_key to null to go without",
            )
        return mask

    def _by_number(self, devices: Mapping[str, Device]) -> dict[int, tuple[str, Device]]:
        found: dict[int, tuple[str, Device]] = {}
        modules = self._settings.modules or 0
        for name, device in devices.items():
            match = self._number.search(name)
            number = int(match[1]) - self._settings.first_module if match and match[1].isdecimal() else -1
            if not 0 <= number < modules or number in found:
                raise BadData(
                    "modules",
                    f"source {name!r} is no module 0…{modules - 1} of its own: correct source, module_pattern, "
                    "first_module or modules",
                )
            found[number] = (name, device)
        return found

    def _stack(
        self, found: Mapping[int, tuple[str, Device]]
    ) -> tuple[Device, Encoded, tuple[str, ...], Encoded | None, tuple[int, ...]]:
        """Copy the modules into one array, because one message is one buffer. Modules that differ count as missing."""
        images: dict[int, Encoded] = {}
        for number, (name, device) in found.items():
            if self._settings.image_key in device.arrays:
                images[number] = self._image(device, name)
        common = Counter((e.shape, e.dtype) for e in images.values() if 0 not in e.shape).most_common(1)
        if not common:
            names = ", ".join(name for name, _ in found.values())[:200]
            raise BadData("key", f"no module has pixels in {self._settings.image_key!r} ({names}): correct image_key")
        shape, dtype = common[0][0]
        images = {n: e for n, e in images.items() if (e.shape, e.dtype) == (shape, dtype)}
        axes = self._axes(next(iter(images.values())), one_module=True)
        if "module" in axes:
            raise BadData("axes", f"{shape} read as {' '.join(axes)!r}: each source that matches is one module already")
        masks = {n: m for n, e in images.items() if (m := self._mask(found[n][1], e, axes)) is not None}
        modules = self._settings.modules or 0
        missing = tuple(n for n in range(modules) if n not in images)
        stacked = _stacked(images, modules, shape, dtype)
        mask = _stacked(masks, modules, shape, next(iter(masks.values())).dtype) if masks else None
        return found[min(images)][1], stacked, ("module", *axes), mask, missing

    def _select(
        self, device: Device, image: Encoded, axes: tuple[str, ...], mask: Encoded | None, info: dict[str, Any]
    ) -> Reading:
        n = extent("pulse", axes, image.shape)
        if n is None:
            return Reading(image, axes, mask, 1, (), info)
        ids = self._ids(device, self._settings.pulse_key, n)
        cells = self._ids(device, self._settings.cell_key, n)
        if ids is None or len(set(ids.tolist())) != n or (n and int(ids.min()) < 0):
            ids = np.arange(n)  # frames need names of their own
        keep = np.ones(n, bool)
        if self._pulses is not None:
            keep &= self._pulses(ids)
        if self._cells is not None:
            if cells is None:
                raise BadData(
                    "key", f"no {self._settings.cell_key!r} in the train: correct cell_key, or set cells: all"
                )
            keep &= self._cells(cells)
        if not keep.all():
            info["select"] = tuple(np.flatnonzero(keep).tolist())
        if cells is not None:
            info["cells"] = tuple(cells[keep].tolist())
        return Reading(image, axes, mask, int(keep.sum()), tuple(ids[keep].tolist()), info)

    def _ids(self, device: Device, key: str, n: int) -> np.ndarray[Any, np.dtype[Any]] | None:
        found = device.arrays.get(key)
        if found is None:
            return None
        if isinstance(found, Unusable):
            raise BadData("pulses", found.detail)
        ids = integers(found)
        if ids.size != n:
            raise BadData("pulses", f"{key} names {ids.size} pulses, the array has {n}: are the axes in another order?")
        return ids


def value_of(train: Train, source: str, key: str) -> int | float | str | None:
    """One plain value of a train; an array of one number counts as that number. None where it is not there."""
    device = train.devices.get(source)
    value = None if device is None else device.values.get(key, device.arrays.get(key))
    if isinstance(value, Encoded) and value.nbytes == value.dtype.itemsize:
        value = np.frombuffer(value.buffer, value.dtype)[0].item()
    return value if isinstance(value, int | float | str) else None


def _stacked(arrays: Mapping[int, Encoded], modules: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Encoded:
    """(module, *shape); what is missing is NaN, or 0 for integers, as EXtra-data fills it."""
    out = np.empty((modules, *shape), dtype)
    for number in range(modules):
        module = arrays.get(number)
        if module is None:
            out[number] = np.nan if dtype.kind == "f" else 0
        else:
            out[number] = np.frombuffer(module.buffer, dtype).reshape(shape)
    return Encoded(out.reshape(-1).view(np.uint8).data, out.shape, dtype)
