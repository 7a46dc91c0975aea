"""The tomograms of a session as the live page has them: rows by name, and what they give together."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Mapping, Sequence

from ..live.common import finite
from ..live.mining_view import Group, Tomogram
from ..live.page import JSON

MOST_ROWS = 2000
HOUR_S = 3600.0


class TomogramRows:
    """Tomograms by name, at most ``most``; the oldest leave, and stay in the totals. For any thread.

    ``version`` counts up when rows that browsers have may have changed.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._rows: dict[str, Tomogram] = {}
        #: Sub-volumes of tomograms whose rows had to leave, and the age of the last of these.
        self._left: dict[str, int] = {}
        self._gone = self._newest = (-math.inf, "")
        self.version = 0

    def put(self, found: Tomogram) -> None:
        """Take in a tomogram, in place of an older one of its name; the same row again changes nothing."""
        with self._lock:
            old = self._rows.get(found.name)
            if old is found:
                return
            if _age(found) <= self._gone and found.name in self._left:
                self._left[found.name] = found.picks
                return
            # Browsers are told of the newest rows only.
            self.version += old is not None or _age(found) < self._newest
            self._newest = max(self._newest, _age(found))
            self._left.pop(found.name, None)
            self._rows[found.name] = found
            while len(self._rows) > self._most:
                oldest = min(self._rows.values(), key=_age)
                self._left[oldest.name], self._gone = oldest.picks, _age(oldest)
                del self._rows[oldest.name]

    def tell(self) -> None:
        """Older rows have changed: browsers shall fetch them anew."""
        with self._lock:
            self.version += 1

    def get(self, row_id: str) -> Tomogram | None:
        """The row of that id."""
        return next((one for one in self.all() if one.id == row_id), None)

    def all(self) -> list[Tomogram]:
        """All rows, newest last."""
        with self._lock:
            return sorted(self._rows.values(), key=_age)

    def totals(self, groups: Sequence[Group], now: float) -> JSON:
        """What all rows give together; ``by_class``: in the order of ``groups``, those of no group last, as ``""``.

        ``error``: of the reconstruction, of the ``last`` tomogram, the ``median`` of all that the same network made,
        and how the last stands to it (``ratio``). ``per_hour``: tomograms, of the last hour.
        """
        rows = self.all()
        with self._lock:
            left = list(self._left.values())
        counts = dict.fromkeys((*(group.name for group in groups), ""), 0)
        names = names_of(groups)
        for row in rows:
            for name, n in by_class(row, names).items():
                counts[name] = counts.get(name, 0) + n
        errors = _errors(rows)
        median = statistics.median(errors) if errors else None
        return {
            "tomograms": len(rows) + len(left),
            "subvolumes": sum(row.picks for row in rows) + sum(left),
            "by_class": [{"name": name, "count": n} for name, n in counts.items()],
            "error": {
                "last": errors[-1] if errors else None,
                "median": median,
                "ratio": errors[-1] / median if median else None,
            },
            "per_hour": per_hour([row.time for row in rows], now),
        }


def names_of(groups: Sequence[Group]) -> dict[int, str]:
    """The group of each cluster that is in one."""
    return {number: group.name for group in groups for number in group.clusters}


def by_class(row: Tomogram, names: Mapping[int, str]) -> dict[str, int]:
    """Sub-volumes by the group their cluster is in now (``names``, by cluster); those of none under ``""``."""
    if not row.by_cluster:
        return dict(row.by_class)
    found: dict[str, int] = {}
    for number, n in row.by_cluster.items():
        name = names.get(number, "")
        found[name] = found.get(name, 0) + n
    return found


def row_json(row: Tomogram, names: Mapping[int, str]) -> JSON:
    """As the browser's table has it."""
    return {
        "id": row.id,
        "name": row.name,
        "time": row.time,
        "shape": list(row.shape),
        "voxel_a": finite(row.voxel_a),
        "picks": row.picks,
        "by_class": by_class(row, names),
        "error": finite(row.error),
        "network": row.network,
        "seconds": finite(row.seconds),
        "mode": row.mode,
        "revision": row.revision,
        "labels": row.labels is not None,
        "warnings": list(row.warnings),
    }


def _errors(rows: Sequence[Tomogram]) -> list[float]:
    """Errors of reconstruction by the network that made the newest of them: those of two are not compared."""
    known = [row for row in rows if math.isfinite(row.error)]
    return [row.error for row in known if row.network == known[-1].network]


def per_hour(times: Sequence[float], now: float) -> float | None:
    """Tomograms per hour, of those of the last hour; None where there were fewer than two of them."""
    late = [at for at in times if at >= now - HOUR_S]
    if len(late) < 2 or late[-1] <= late[0]:
        return None
    return (len(late) - 1) * HOUR_S / (late[-1] - late[0])


def _age(row: Tomogram) -> tuple[float, str]:
    return row.time, row.name
