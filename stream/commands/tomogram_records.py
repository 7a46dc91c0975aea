"""The records of a session on tomograms, as the commands read them: codes and sub-volumes of one network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...models.tomograms.book import NAME
from ..sinks.tomograms.places import RECORDS, records_below
from ..sinks.tomograms.record import read, read_kept

if TYPE_CHECKING:
    from ...models.tomograms.book import Clusters
    from ...models.tomograms.codec import Codec

Floats = npt.NDArray[np.float32]
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """A tomogram's record: ``codes`` float32 (n, d) by the network of this name and SHA-256."""

    path: Path
    name: str
    codes: Floats
    network: str
    sha256: str


def records_in(directory: Path) -> list[Mined]:
    """All records of the session in ``directory``, by name. Raises ``BadData`` for one that is damaged.

    Raises ``ValueError`` where there are none.
    """
    paths = records_below(directory)
    if not paths:
        raise ValueError(
            f"{directory}: holds no mined tomograms ({directory / RECORDS}/*.h5); name the folder that they were mined "
            "to"
        )
    found = []
    for path in paths:
        one = read(path, slices=False)
        found.append(Mined(path, one.name, one.picked.codes, one.network, one.network_sha256))
    return found


def of_one_network(records: Sequence[Mined], chosen: str | None) -> list[Mined]:
    """The records of one network. Raises ``ValueError`` where there are several, and none is ``chosen``.

    ``chosen``: name of the network, or how its SHA-256 begins.
    """
    by_network: dict[str, list[Mined]] = {}
    for record in records:
        by_network.setdefault(record.sha256, []).append(record)
    if chosen is not None:
        matching = [key for key, mine in by_network.items() if key.startswith(chosen) or mine[0].network == chosen]
        if len(matching) != 1:
            what = "is none of" if not matching else "may be several of"
            raise ValueError(f"--network {chosen}: {what} the networks that encoded here: {_listed(by_network)}")
        return by_network[matching[0]]
    if len(by_network) > 1:
        raise ValueError(
            f"codes of {len(by_network)} networks cannot be compared: {_listed(by_network)}; mine all tomograms with "
            "one of them, or name it with --network to leave the others' tomograms as they are"
        )
    return list(records)


def _listed(by_network: dict[str, list[Mined]]) -> str:
    parts = [f"{mine[0].network} {key[:12]} ({len(mine)} tomograms)" for key, mine in by_network.items()]
    return ", ".join(sorted(parts))


def kept_in(records: Sequence[Mined]) -> Iterator[tuple[Floats, Floats]]:
    """The sub-volumes that records keep, some at a time: (m, e, e, e) float32 with their codes (m, d)."""
    for record in records:
        kept = read_kept(record.path)
        for first in range(0, 0 if kept is None else len(kept), _AT_ONCE):
            assert kept is not None
            some = slice(first, first + _AT_ONCE)
            yield kept.boxes[some].astype(np.float32), record.codes[kept.rows[some]]


def codec_of(record: Mined, directory: Path, bundle: Path | None, device: str, threads: int | None) -> Codec:
    """The network that encoded a record: ``bundle``, one trained in the session, or one that is known by its name.

    Raises ``BundleError``, and ``ValueError`` where no bundle is that network.
    """
    from ...models.bundle import BundleError, load_bundle
    from ...models.tomograms.codec import Codec

    places: list[Path | str] = [bundle] if bundle else [*_trained(directory, record.sha256), record.network]
    for place in places:
        try:
            found = load_bundle(place)
        except BundleError as error:
            if bundle or error.reason != "unknown":
                raise
            continue
        if found.card.sha256 == record.sha256:
            return Codec(found, device=device, threads=threads)
    which = f"{record.network} (SHA-256 {record.sha256[:12]}…)"
    wrong = f"--bundle {bundle}: is another network than {which}" if bundle else f"no bundle is the network {which}"
    raise ValueError(f"{wrong} that encoded {record.name}; give its .pt file with --bundle, or mine the tomograms anew")


def old_codec(old: Clusters, directory: Path, device: str, threads: int | None) -> Codec | None:
    """The network of earlier clusters, where it is still to be found."""
    from ...models.bundle import BundleError

    record = Mined(directory / NAME, "the clusters", np.zeros((0, 0), np.float32), old.name, old.network)
    try:
        return codec_of(record, directory, None, device, threads)
    except (BundleError, ValueError):
        return None


def _trained(directory: Path, sha256: str) -> list[Path]:
    """Bundles below the session's folder whose card says this SHA-256."""
    found = []
    for card in sorted((directory / "models").rglob("*.json")):
        try:
            said = json.loads(card.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(said, dict) and said.get("sha256") == sha256:
            found.append(card.with_suffix(".pt"))
    return found
