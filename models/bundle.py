"""A bundle: ``<name>.pt`` (TorchScript) and ``<name>.json`` (its card), written together and checked before use.

Models are data, not code to trust: a file is run only if its SHA-256 is the one in its card. TorchScript files are read
by torch's own reader, which runs no Python; pickled models are refused.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import torch

from .card import TOLERANCE, Card, CardError

__all__ = [
    "Bundle",
    "BundleError",
    "Card",
    "available",
    "bundle_at",
    "load_bundle",
    "quiet_torchscript",
    "save_bundle",
    "search_path",
]

SEARCH_VARIABLE = "BEAMSIEVE_MODELS"


class BundleError(Exception):
    """A bundle that is not used. ``reason`` is a short fixed word; the message names the file, the fault, the remedy.

    Reasons: ``unknown`` (no such bundle), ``card`` (missing or with mistakes), ``missing`` (the model file), ``sha256``
    (not the file of this card), ``format`` (not TorchScript), ``task``, ``shape``, ``classes`` (not what is needed).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silence exactly torch's notice that TorchScript is deprecated (torch >= 2.10), and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
        yield


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model whose file is the one its card speaks for. ``path`` is the ``.pt`` file."""

    card: Card
    path: Path
    module: torch.jit.ScriptModule = field(repr=False)

    def expect(
        self,
        *,
        task: str | None = None,
        shape: Sequence[int] | None = None,
        classes: int | Sequence[str] | None = None,
    ) -> Bundle:
        """Give the bundle back if it fits; raise ``BundleError`` with all that does not.

        ``shape`` is that of one input without the batch axis; leading axes of 1 are not compared. ``classes`` is how
        many there must be, or their names in order.
        """
        faults: list[tuple[str, str]] = []
        card = self.card
        if task is not None and task != card.task:
            faults.append(("task", f"its task is {card.task}, needed is {task}"))
        if shape is not None and _bare(shape) != _bare(card.input.shape):
            faults.append(("shape", f"its input is {_times(card.input.shape)} pixels, needed is {_times(shape)}"))
        names = card.output.classes
        if isinstance(classes, int) and classes != len(names):
            faults.append(("classes", f"it has {len(names)} classes ({', '.join(names)}), needed are {classes}"))
        elif classes is not None and not isinstance(classes, int) and tuple(classes) != names:
            faults.append(("classes", f"its classes are {', '.join(names)}, needed are {', '.join(classes)}"))
        if faults:
            wrong = "; ".join(detail for _, detail in faults)
            raise BundleError(faults[0][0], f"{self.path}: {wrong}; choose another bundle (`beamsieve models list`)")
        return self


def save_bundle(directory: Path, name: str, module: torch.jit.ScriptModule, card: Mapping[str, object]) -> Path:
    """Write ``<name>.pt`` and ``<name>.json`` into ``directory`` and return the path of the ``.pt`` file.

    ``module``: scripted or traced, in evaluation mode; ``forward`` takes (n, then the card's input shape). ``card``
    holds the fields of ``Card``; ``name``, ``sha256``, ``torch`` are filled in, ``created`` and ``tolerance`` where
    absent. Both files are written beside their names and renamed, the card last. Raises ``BundleError`` (``card``) with
    all mistakes of the card, before anything is written.
    """
    buffer = io.BytesIO()
    with quiet_torchscript():
        torch.jit.save(module, buffer)
    data = buffer.getvalue()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    full = {"created": created, "tolerance": dict(TOLERANCE), **card}
    full |= {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "torch": torch.__version__}
    path = directory / f"{name}.pt"
    checked = _parse(full, _card_path(path))
    text = json.dumps(checked.to_json(), indent=2, ensure_ascii=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    _replace(path, data)
    _replace(_card_path(path), text.encode())
    return path


def load_bundle(name_or_path: str | Path, directory: Path | None = None) -> Bundle:
    """Find a bundle, check it, and read its module (on the CPU, in evaluation mode).

    A path (with a separator, or ending in ``.pt`` or ``.json``) is taken as it is; a name is looked for in
    ``directory``, then in the directories of ``BEAMSIEVE_MODELS``, then among the weights that ship. Raises
    ``BundleError`` with the reason and the remedy.
    """
    path = _find(name_or_path, directory)
    card = read_card(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError("missing", f"{path}: {error.strerror or error}; it belongs beside its card") from error
    found = hashlib.sha256(data).hexdigest()
    if found != card.sha256:
        raise BundleError(
            "sha256",
            f"{path}: its SHA-256 is {found[:12]}…, its card says {card.sha256[:12]}…; "
            "it was changed or cut short: copy both files again, or train it again",
        )
    return Bundle(card, path, _load_script(data, path))


def read_card(path: Path) -> Card:
    """Read and check the card that belongs to the ``.pt`` file ``path``. Raises ``BundleError`` (``card``)."""
    card_path = _card_path(path)
    try:
        found = json.loads(card_path.read_text("utf-8"))
    except OSError as error:
        detail = f"{card_path}: {error.strerror or error}; a model without its card is not loaded"
        raise BundleError("card", detail) from error
    except ValueError as error:
        raise BundleError("card", f"{card_path}: is not JSON ({error}); restore the card written with it") from error
    return _parse(found, card_path)


def search_path(directory: Path | None = None) -> tuple[Path, ...]:
    """The directories where a name is looked for, first to last."""
    given = [Path(part) for part in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if part]
    shipped = Path(str(resources.files(f"{__package__}.weights")))
    return (*([directory] if directory else []), *given, shipped)


def available(directory: Path | None = None) -> dict[str, Path]:
    """Names of all bundles that can be found, with their ``.pt`` files; the first of a name wins, as in loading."""
    found: dict[str, Path] = {}
    for place in search_path(directory):
        for card in sorted(place.glob("*.json")):
            found.setdefault(card.name.removesuffix(".json"), card.with_name(card.name.removesuffix("json") + "pt"))
    return found


def _load_script(data: bytes, path: Path) -> torch.jit.ScriptModule:
    """The one place where a model file becomes a module: another format would stand beside this function."""
    load: Callable[..., torch.jit.ScriptModule] = torch.jit.load
    try:
        with quiet_torchscript():
            module = load(io.BytesIO(data), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[0][:160]
        remedy = "pickled models are not loaded: export it with torch.jit.script"
        raise BundleError("format", f"{path}: is not a TorchScript file ({said}); {remedy}") from error
    return module.eval()


def bundle_at(name_or_path: str, base: Path) -> str | Path:
    """A bundle's name as it is; a path (see ``load_bundle``) from ``base``, where it is relative."""
    return base / name_or_path if _is_path(name_or_path) else name_or_path


def _is_path(text: str) -> bool:
    return os.sep in text or text.endswith((".pt", ".json"))


def _find(name_or_path: str | Path, directory: Path | None) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or _is_path(text):
        base = text.removesuffix(".pt").removesuffix(".json")
        path = Path(f"{base}.pt")
        if not path.exists() and not _card_path(path).exists():
            raise BundleError("unknown", f"{path}: there is no such bundle; give the path of its .pt file or a name")
        return path
    known = available(directory)
    if text in known:
        return known[text]
    near = difflib.get_close_matches(text, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
    places = ", ".join(str(place) for place in search_path(directory))
    raise BundleError("unknown", f"no bundle named {text}: {hint} (looked in {places}; {SEARCH_VARIABLE} adds more)")


def _parse(card: object, path: Path) -> Card:
    try:
        return Card.parse(card)
    except CardError as error:
        reason = "task" if all(mistake.startswith("task:") for mistake in error.mistakes) else "card"
        wrong = "".join(f"\n  {mistake}" for mistake in error.mistakes)
        raise BundleError(reason, f"{path}: mistakes in the card:{wrong}") from error


def _card_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".pt") + ".json")


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".inprogress")
    part.write_bytes(data)
    part.replace(path)


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    bare = tuple(shape)
    while len(bare) > 2 and bare[0] == 1:
        bare = bare[1:]
    return bare


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
