"""Which axis of a train is which: the operator's word for it, checked against the arrays that arrive.

European XFEL's detectors come in two orders. Online, calibrated trains are (module, fs, ss, pulse); in files, and
from bridges that reshape, they are (pulse, module, ss, fs); raw AGIPD and LPD files carry one more axis after the
pulses, for signal and gain (AGIPD) or of extent one (LPD). A module is ss × fs pixels: 512 × 128 (AGIPD),
128 × 512 (DSSC), 256 × 256 (LPD). Source: karabo-bridge's simulated detectors, EXtra-data's stacking, EXtra-foam's
image assembler.
"""

from __future__ import annotations

from ..flow.frame import BadData

WORDS = ("pulse", "module", "ss", "fs", "gain", "one")
"""``ss``, ``fs``: slow and fast scan, y and x of a module. ``gain``: index 0 is the signal. ``one``: extent one."""

PRESETS = {
    "online": {2: "ss fs", 3: "fs ss pulse", 4: "module fs ss pulse"},
    "file": {2: "ss fs", 3: "pulse ss fs", 4: "pulse module ss fs", 5: "pulse gain module ss fs"},
    "camera": {2: "ss fs"},
}
_RAW_MODULE = "pulse gain ss fs"


def parse_axes(text: str) -> str:
    """Check the setting ``axes``: a preset's name or words such as ``module fs ss pulse``. Raises ``ValueError``."""
    words = text.split()
    if text in PRESETS:
        return text
    unknown = [w for w in words if w not in WORDS]
    if unknown:
        raise ValueError(f"unknown axis {unknown[0]!r}: use {', '.join(PRESETS)}, or words of {' '.join(WORDS)}")
    doubled = [w for w in words if w != "one" and words.count(w) > 1]
    if doubled or "ss" not in words or "fs" not in words:
        raise ValueError(f"axes {text!r}: ss and fs must be there, and no axis but 'one' twice")
    return " ".join(words)


def read_axes(
    axes: str, shape: tuple[int, ...], one_module: bool = False, module_shape: tuple[int, int] | None = None
) -> tuple[str, ...]:
    """Name the axes of an array of ``shape``, in its order.

    ``axes`` is what ``parse_axes`` returned; ``one_module`` says that the array is known to hold one module, which
    makes four axes in file order (pulse, gain, ss, fs). ``module_shape`` (ss, fs) is compared where given. Raises
    ``BadData("axes")`` with what fits instead.
    """
    words = _words(axes, shape, one_module)
    if words is None or len(words) != len(shape):
        wanted = axes if words is None else " ".join(words)
        raise BadData("axes", f"array of shape {shape} cannot be read as axes {wanted!r}: {_hint(shape, module_shape)}")
    sizes = dict(zip(words, shape, strict=True))
    ones = [n for word, n in zip(words, shape, strict=True) if word == "one"]
    if any(n != 1 for n in ones):
        raise BadData("axes", f"array of shape {shape} read as {' '.join(words)}: the axis 'one' is not 1 long")
    found = (sizes["ss"], sizes["fs"])
    if module_shape is not None and found != module_shape:
        raise BadData(
            "axes",
            f"array of shape {shape} read as {' '.join(words)!r} has modules of {found[0]} × {found[1]} pixels, "
            f"expected {module_shape[0]} × {module_shape[1]}: {_hint(shape, module_shape)}",
        )
    return words


def extent(word: str, words: tuple[str, ...], shape: tuple[int, ...]) -> int | None:
    """How long the axis ``word`` is, or None where the array has no such axis."""
    return shape[words.index(word)] if word in words else None


def _words(axes: str, shape: tuple[int, ...], one_module: bool) -> tuple[str, ...] | None:
    if axes == "camera":
        return _camera(shape)
    if axes == "file" and one_module and len(shape) == 4:
        return tuple(_RAW_MODULE.split())
    text = PRESETS[axes].get(len(shape)) if axes in PRESETS else axes
    return None if text is None else tuple(text.split())


def _camera(shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Cameras send (y, x), (1, y, x) or (y, x, 1): every extra axis is one long."""
    extra = len(shape) - 2
    names = iter(("ss", "fs"))
    words = []
    for n in shape:
        if n == 1 and extra > 0:
            words.append("one")
            extra -= 1
        else:
            words.append(next(names, ""))
    return tuple(words) if extra == 0 and "" not in words else None


def _hint(shape: tuple[int, ...], module_shape: tuple[int, int] | None) -> str:
    fits = [
        name
        for name in PRESETS
        if (words := _words(name, shape, False)) is not None
        and (module_shape is None or (extent("ss", words, shape), extent("fs", words, shape)) == module_shape)
    ]
    other = (
        f"axes: {' or '.join(fits)} would fit" if fits else "write the axes as words, for example 'pulse module ss fs'"
    )
    return f"{other}; or correct module_shape"
