"""The clusters on the live page of ``cryoet_mining``: their numbers as JSON, their pictures, and groups of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...models.tomograms.groups import KINDS, LONGEST, MOST, Group, Groups, GroupsError
from ..live.changes import Changes
from ..live.common import finite
from ..live.mining_view import MOST_CLUSTERS, MOST_EVENTS, ClusterView, Mining, MiningLevers
from ..live.page import JSON, Blob, Refused

#: The kind of blob, by the number of a cluster.
CLUSTER = "cluster"
_LONGEST = 200  # characters of a text that goes to every browser each second
_DIGITS = 10


class MiningPanel:
    """What the page answers of the clusters of ``levers``. For any thread; ``act`` by one at a time.

    ``life``: cluster 3 of another session has the number and maybe the version of cluster 3 of this one, but not this
    word: with it in the address a browser may keep a picture.
    """

    def __init__(self, levers: MiningLevers, changes: Changes) -> None:
        self._levers, self._changes = levers, changes
        self.life = secrets.token_hex(4)
        self._made: tuple[Mining, JSON] | None = None

    def current(self) -> Mining:
        """As the levers tell it now."""
        return self._levers.current()

    def state(self) -> JSON:
        """The field ``mining`` of the snapshot: made anew only where the session has another version."""
        current, made = self._levers.current(), self._made
        if made is None or made[0].version != current.version:
            made = self._made = (current, {"life": self.life, **mining_json(current)})
        return made[1]

    def blob(self, name: str, query: Mapping[str, str]) -> Blob | None:
        """Pictures of cluster ``name``, uint8 (4, e, e): its projection, then slices xy, xz and yz.

        None for a cluster that is not there (any more). Lasting where ``query`` names the ``life`` and, as ``v``, the
        version that is there.
        """
        view = _named(self._levers.current(), name)
        if view is None:
            return None
        pixels = np.concatenate([view.projection[None], view.slices]).astype(np.uint8, copy=False)
        head = {"shape": list(pixels.shape), "dtype": "u1", "id": view.id, "version": view.version}
        lasting = query.get("v") == str(view.version) and query.get("life") == self.life
        return Blob(np.ascontiguousarray(pixels).tobytes(), head=head, lasting=lasting)

    def act(self, body: Mapping[str, Any], by: str) -> JSON:
        """``group``: put ``clusters`` (ids) into ``group``; empty: into none. ``kind``, for a group that is new.

        Raises ``Refused``; then nothing was changed, but for a new group, which stays without clusters where these
        could not be marked.
        """
        current = self._levers.current()
        views = _clusters(body.get("clusters"), current)
        group, by = _group_name(body.get("group")), by or "somebody"
        if group and not any(known.name == group for known in current.groups):
            self._new_group(group, body.get("kind"), [known.name for known in current.groups], by)
        changed = [view for view in views if view.mark != group]
        if changed:
            self._mark(changed, group, by)
        return {"mining": self.state()}

    def _new_group(self, name: str, kind: Any, names: Sequence[str], by: str) -> None:
        if kind is None:
            there = ", ".join(names) or "none yet"
            raise Refused(f"group: there is no group {name}; there are: {there}. Give a kind to make it")
        if kind not in KINDS:
            raise Refused(f"kind: is not one of {', '.join(KINDS)}")
        try:
            Groups((*(Group(known) for known in names), Group(name, kind)))
        except GroupsError as error:
            raise Refused(error.mistakes[-1]) from None
        self._changes.note("group", by, None, {"name": name, "kind": kind})
        try:
            self._levers.new_group(name, kind, by)
        except Refused:
            # It was written down and not made.
            self._changes.note("group", by, {"name": name, "kind": kind}, None)
            raise

    def _mark(self, views: Sequence[ClusterView], group: str, by: str) -> None:
        ids = tuple(view.id for view in views)
        old: dict[str, list[int]] = {}
        for view in views:
            old.setdefault(view.mark, []).append(view.id)
        new = {group: list(ids)}
        self._changes.note("clusters", by, old, new)
        try:
            if group:
                self._levers.mark(ids, group, by)
            else:
                self._levers.unmark(ids, by)
        except Refused:
            self._changes.note("clusters", by, new, old)
            raise


def mining_json(found: Mining) -> JSON:
    """``found`` without its pictures, as browsers read it; what is no finite number is None."""
    job = None if found.job is None else dict(zip(("what", "done", "of", "text"), found.job, strict=True))
    if job is not None:
        job["text"] = str(job["text"])[:_LONGEST]
    return {
        "version": found.version,
        "mode": found.mode,
        "state": found.state,
        "error": found.error[:_LONGEST],
        "have": found.have,
        "need": found.need,
        "pixel_a": finite(found.pixel_a),
        "network": {
            "name": found.network.name,
            "sha256": found.network.sha256,
            "trained": found.network.trained,
        },
        "job": job,
        "events": [{"time": at, "text": text[:_LONGEST]} for at, text in found.events[-MOST_EVENTS:]],
        "groups": [
            {"name": one.name, "kind": one.kind, "colour": one.colour, "clusters": list(one.clusters)}
            for one in found.groups[:MOST]
        ],
        "list": [_cluster_json(view) for view in found.clusters[:MOST_CLUSTERS]],
    }


def _cluster_json(view: ClusterView) -> JSON:
    return {
        "id": view.id,
        "count": view.count,
        "share": view.share,
        "mark": view.mark,
        "error": finite(view.error),
        "version": view.version,
    }


def _clusters(given: Any, current: Mining) -> list[ClusterView]:
    """The clusters of an action; raises ``Refused`` where one is not there."""
    whole = isinstance(given, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in given)
    if not whole or not given or len(given) > MOST_CLUSTERS:
        raise Refused("clusters: give the numbers of clusters, as a list")
    known = {view.id: view for view in current.clusters}
    gone = [str(one) for one in given if one not in known]
    if gone:
        raise Refused(
            f"clusters: there is no cluster {', '.join(gone[:5])}, or no longer; mark those that are shown now"
        )
    return [known[one] for one in dict.fromkeys(given)]


def _group_name(given: Any) -> str:
    if not isinstance(given, str) or len(given) > 2 * LONGEST:
        raise Refused(f"group: give a name of at most {LONGEST} characters, or an empty one to unmark")
    return " ".join(given.split())


def _named(found: Mining, name: str) -> ClusterView | None:
    if not (name.isascii() and name.isdecimal() and len(name) < _DIGITS):
        return None
    return next((view for view in found.clusters if view.id == int(name)), None)
