"""2-D classes that grow with the session: mini-batch k-means whose classes keep their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .kmeans import Ints, Progress, kmeans, nearest, never, turned_sums
from .matching2d import Change, changes, matched
from .polar import ORDERS, RINGS, Complexes, Floats, compare, normalised, turned_spectra

Arrays = dict[str, npt.NDArray[Any]]
_LAYOUT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """The class of each of n images: ``id`` int32 (n,), 0 = not classified; ``angle`` float32 (n,), degrees by which
    the image turns onto its class's centre; ``similarity`` float32 (n,), correlation with the centre, -1..1.
    """  # noqa: D205

    id: Ints
    angle: Floats
    similarity: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """A finished re-clustering, to be handed to ``OnlineClasses.adopt``.

    ``centres`` complex64 (k, R, M); ``counts`` int64 (k,), members in the sample; ``before``: numbers of the classes
    there were; ``shared`` int64 (len(before), k), images that were of the one and are of the other; ``finished``:
    False if it was stopped early.
    """

    centres: Complexes
    counts: npt.NDArray[np.int64]
    before: tuple[int, ...]
    shared: npt.NDArray[np.int64]
    finished: bool


class OnlineClasses:
    """Classes of rotational spectra (``polar.features``), updated with every batch, re-clustered now and then.

    ``most``: most classes; ``per_class``: images there should be for each class, so that a few images make few classes.
    One thread may call it at a time; ``recluster`` alone may run in another meanwhile.
    """

    def __init__(self, most: int, *, per_class: int = 25, seed: int = 0) -> None:
        if most < 1 or per_class < 1:
            raise ValueError(f"most = {most}, per_class = {per_class}: both are numbers of at least 1")
        self.most, self.per_class, self.seed = most, per_class, seed
        self.ids: tuple[int, ...] = ()
        self._means = np.zeros((0, RINGS, ORDERS), np.complex64)
        self._counts = np.zeros(0, np.int64)
        self._next = 1
        self._passes = 0

    @property
    def centres(self) -> Complexes:
        """Centres complex64 (k, R, M) of length 1, in the order of ``ids``."""
        return normalised(self._means)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many images made each centre: int64 (k,), in the order of ``ids``."""
        return self._counts.copy()

    def number_for(self, count: int) -> int:
        """How many classes ``count`` images are grouped into."""
        return max(1, min(max(count // self.per_class, 2), self.most, count))

    def start(self, spectra: Complexes) -> None:
        """Make the first classes of the images there are, complex64 (n, R, M). Raises ``ValueError`` without any."""
        self.adopt(self.recluster(spectra, count=len(spectra)))

    def assign(self, spectra: Complexes) -> Assigned:
        """The class each image is most like. Number 0 for images without contrast, and for all before ``start``."""
        if not self.ids:
            none = np.zeros(len(spectra), np.float32)
            return Assigned(np.zeros(len(spectra), np.int32), none, none.copy())
        label, angle, similarity, _ = nearest(spectra, self.centres)
        known = np.array(self.ids, np.int32)[label]
        known[~spectra.any((1, 2))] = 0
        return Assigned(known, angle, similarity)

    def learn(self, spectra: Complexes, assigned: Assigned) -> None:
        """Move the centres towards new members: by 1 / count for each (Sculley, WWW 2010), turned onto the centre.

        Members of numbers that are no more, and of 0, are left out.
        """
        member = assigned.id[:, None] == np.array(self.ids, np.int32)
        inside = member.any(1) & (assigned.id > 0)
        label = member.argmax(1)[inside] if self.ids else np.zeros(0, np.intp)
        sums, fresh = turned_sums(spectra[inside], label, assigned.angle[inside], len(self.ids))
        total = self._counts + fresh
        # Updating by 1 / count one by one gives the mean of all members; so does this, at once.
        old = (self._counts / np.maximum(total, 1)).astype(np.float32)
        new = (1 / np.maximum(total, 1)).astype(np.float32)
        seen = (fresh > 0)[:, None, None]
        self._means = np.where(seen, self._means * old[:, None, None] + sums * new[:, None, None], self._means)
        self._counts = total

    def recluster(
        self,
        spectra: Complexes,
        *,
        count: int,
        stop: Callable[[], bool] = never,
        progress: Progress | None = None,
    ) -> Centres:
        """Group a sample (n, R, M) anew, from new seeds and the old centres; nothing of this object changes.

        ``count``: images of the session so far, which says how many classes are made. ``stop`` is asked often; the
        result then has ``finished`` False and should not be adopted. Raises ``ValueError`` where no image has contrast.
        """
        ids, centres = self.ids, self.centres
        spectra = spectra[spectra.any((1, 2))]
        if not len(spectra):
            raise ValueError("no image with contrast to make classes of")
        k = min(self.number_for(count), len(spectra))
        # The largest first: where there are more than k, the smallest have to go.
        first = centres[np.argsort(-self._counts, kind="stable")] if ids else None
        found = kmeans(spectra, k, seed=self.seed + self._passes, first=first, stop=stop, progress=progress)
        shared, finished = np.zeros((len(ids), k), np.int64), found.finished
        if len(ids) and finished:
            old, _, _, finished = nearest(spectra, centres, stop)
            np.add.at(shared, (old, found.label), 1)
        counts = np.bincount(found.label, minlength=k)
        kept = counts > 0
        return Centres(found.centres[kept], counts[kept], ids, shared[:, kept], finished)

    def adopt(self, centres: Centres) -> tuple[Change, ...]:
        """Put new centres in the place of the old; says what appeared and disappeared (nothing at the first call).

        A new class that continues an old one has its number and lies as it did; another gets a number never used
        before, and lies as the class it was split off. Numbers that were dropped since the sample was grouped are left
        out.
        """
        shared = self._rows(centres)
        alike, angle = compare(centres.centres, self.centres)
        continues = matched(shared, alike.T) if self.ids else np.full(len(centres.centres), -1)
        first = not self.ids
        ids = tuple(self.ids[old] if old >= 0 else self._fresh() for old in continues)
        # What continues no class is laid as the one it mostly came from, or looks most like.
        if not first:
            towards = np.where(continues >= 0, continues, np.where(shared.any(0), shared.argmax(0), alike.argmax(1)))
            turn = np.take_along_axis(angle, towards[:, None], 1)[:, 0]
            means = turned_spectra(centres.centres, turn)
        else:
            means = centres.centres.copy()
        said = () if first else changes(shared, self.ids, ids)
        self.ids, self._means, self._counts = ids, means, centres.counts.astype(np.int64)
        self._passes += 1
        return said

    def _rows(self, centres: Centres) -> npt.NDArray[np.int64]:
        """``shared`` with a row for each class there is now."""
        at = {number: row for row, number in enumerate(centres.before)}
        rows = [centres.shared[at[n]] if n in at else np.zeros_like(centres.counts) for n in self.ids]
        return np.array(rows, np.int64).reshape(len(self.ids), len(centres.counts))

    def _fresh(self) -> int:
        self._next += 1
        return self._next - 1

    def state(self) -> Arrays:
        """All there is to know, as arrays that HDF5 and NPZ take; for ``restore``."""
        numbers = [_LAYOUT, self.most, self.per_class, self.seed, self._next, self._passes]
        return {
            "numbers": np.array(numbers, np.int64),
            "ids": np.array(self.ids, np.int32),
            "means": self._means.copy(),
            "counts": self._counts.copy(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, npt.NDArray[Any]], *, most: int | None = None) -> OnlineClasses:
        """The classes of which ``state`` was taken; ``most`` may differ. Raises ``ValueError`` for what is no state."""
        try:
            numbers = [int(v) for v in state["numbers"]]
            ids, means, counts = state["ids"], state["means"], state["counts"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no state of 2-D classes: {error}") from None
        k = len(ids)
        if len(numbers) != 6 or numbers[0] != _LAYOUT or means.shape != (k, RINGS, ORDERS) or counts.shape != (k,):
            raise ValueError(f"state of 2-D classes of another layout: centres {means.shape}, {k} numbers")
        classes = cls(most or numbers[1], per_class=numbers[2], seed=numbers[3])
        classes._next, classes._passes = numbers[4:]
        classes.ids = tuple(int(i) for i in ids)
        classes._means, classes._counts = means.astype(np.complex64), counts.astype(np.int64)
        return classes
