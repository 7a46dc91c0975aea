"""Clusters of codes: k-means the same for a seed, numbers and marks that stay, the file that keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms import cluster as module
from beamsieve.models.tomograms.book import (
    Averages,
    Clusters,
    ClustersError,
    Event,
    read_clusters,
    write_clusters,
)
from beamsieve.models.tomograms.cluster import Centres, assign, cluster
from beamsieve.models.tomograms.follow import Bridge, follow
from beamsieve.models.tomograms.groups import Groups
from beamsieve.models.tomograms.regroup import boxes_bridge, centres_bridge, regroup
from scipy.spatial.distance import cdist

Floats = npt.NDArray[np.float32]
EDGE = 4


class Linear:
    """A network whose code is a few projections of the box, in an order of its own; decoding turns it back."""

    def __init__(self, name: str, seed: int = 0, size: int = 6) -> None:
        self.name, self.sha256, self.posed, self.voxel_a, self.edge = name, name * 4, False, 14.2, EDGE
        basis = np.random.default_rng(100).normal(size=(EDGE**3, size))
        basis, _ = np.linalg.qr(basis - basis.mean(0))
        self._basis = basis[:, np.random.default_rng(seed).permutation(size)]

    def encode(self, boxes: Floats) -> Floats:
        return (boxes.reshape(len(boxes), -1) @ self._basis).astype(np.float32)

    def decode(self, codes: Floats) -> Floats:
        return (codes @ self._basis.T).reshape(-1, EDGE, EDGE, EDGE).astype(np.float32)


NET = Linear("first")


def blobs(counts: list[int], seed: int = 0, wide: float = 0.1, apart: float = 10.0) -> Floats:
    """Codes in as many heaps as there are counts."""
    middles = apart * np.random.default_rng(7).normal(size=(len(counts), 6))
    rng = np.random.default_rng(seed)
    return np.concatenate([m + wide * rng.normal(size=(n, 6)) for m, n in zip(middles, counts, strict=True)]).astype(
        "f4"
    )


def centres(middles: list[Floats], counts: list[int]) -> Centres:
    k = len(counts)
    codes = np.stack(middles).astype(np.float32)
    return Centres(codes, np.array(counts, "i8"), np.ones(k, "f4"), 1.0)


def test_heaps_are_found_largest_first_and_the_same_for_a_seed() -> None:
    codes = blobs([30, 80, 50])
    found, again = cluster(codes, k=3, seed=5), cluster(codes, k=3, seed=5)
    assert found.counts.tolist() == [80, 50, 30]
    np.testing.assert_allclose(found.codes[0], codes[30:110].mean(0), atol=0.02)
    np.testing.assert_array_equal(found.codes, again.codes)
    assert found.finished
    assert not found.note
    row, distance = assign(codes, found)
    assert row.dtype == np.int32
    np.testing.assert_array_equal(row, np.repeat([2, 0, 1], [30, 80, 50]))
    assert found.inertia == pytest.approx(float(np.square(distance).sum()), rel=1e-4)
    np.testing.assert_allclose(
        found.spread, [np.sqrt(np.square(distance[row == i]).mean()) for i in range(3)], rtol=1e-4
    )


def test_few_codes_make_fewer_clusters_and_that_is_said() -> None:
    found = cluster(blobs([4, 5]), k=100)
    assert len(found.codes) == 4
    assert found.note == "9 codes make 4 clusters, not 100"
    one = cluster(np.ones((1, 6), "f4"), k=5)
    assert one.counts.tolist() == [1]
    # Only three different codes: what would be empty is dropped, and no warning of scikit-learn's comes out.
    same = cluster(np.repeat(np.eye(3, 6, dtype="f4"), 10, 0), k=8)
    assert same.counts.tolist() == [10, 10, 10]
    assert "3 clusters, not 8" in same.note


def test_of_many_codes_a_sample_is_seeded_and_all_are_brought_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = blobs([300, 200, 100], wide=1.0)
    monkeypatch.setattr(module, "_SAMPLE", 60)
    said: list[tuple[str, int, int]] = []
    found = cluster(codes, k=3, restarts=2, progress=lambda *a: said.append(a))
    assert found.counts.tolist() == [300, 200, 100]
    np.testing.assert_allclose(found.codes[0], codes[:300].mean(0), atol=1.0)
    assert said == [("cluster", 1, 3), ("cluster", 2, 3), ("cluster", 3, 3)]


def test_restarts_help_and_a_stop_is_heeded() -> None:
    codes = blobs([20] * 12, wide=0.5, apart=2.0)
    one, many = (cluster(codes, k=12, seed=3, restarts=n).inertia for n in (1, 8))
    assert many <= one
    asked = iter([False, True, True, True, True])
    stopped = cluster(codes, k=12, restarts=8, stop=lambda: next(asked, True))
    assert not stopped.finished


def test_earlier_centres_hold_where_others_are_hardly_better() -> None:
    codes = np.random.default_rng(0).normal(size=(600, 6)).astype("f4")  # one heap: any cut of it is as good
    old = cluster(codes, k=8, seed=1, restarts=8)
    found = cluster(codes, k=8, seed=2, restarts=4, first=old.codes)

    def moved(new: Centres) -> float:
        return float(cdist(old.codes, new.codes, "cosine").min(1).max())

    assert moved(found) < 0.01
    assert moved(cluster(codes, k=8, seed=2, restarts=4)) > 0.05
    # Where they are bad they go; where there are fewer than k, others come beside them.
    heaps = blobs([50] * 6)
    bad = cluster(heaps, k=6, first=heaps[:6])
    assert bad.counts.tolist() == [50] * 6
    more = cluster(heaps, k=6, restarts=1, first=old.codes[:2])
    assert len(more.codes) == 6
    fewer = cluster(codes, k=3, restarts=1, first=old.codes)
    assert len(fewer.codes) == 3


def test_codes_without_a_direction_have_no_cluster() -> None:
    codes = blobs([10, 10])
    codes[3, 2] = np.nan
    codes[4, 0] = np.inf
    codes[5] = 0
    found = cluster(codes, k=2)
    assert found.counts.sum() == 17
    row, distance = assign(codes, found)
    assert row[[3, 4, 5]].tolist() == [-1, -1, -1]
    assert np.isinf(distance[[3, 4, 5]]).all()
    assert (row[6:] >= 0).all()
    with pytest.raises(ValueError, match="none of 3 codes is finite and more than zeros"):
        cluster(codes[3:6])
    with pytest.raises(ValueError, match="codes of 6 values"):
        assign(codes[:, :3], found)


def test_a_code_goes_to_the_same_centre_whatever_comes_with_it() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(1, 4, (2000, 6)).astype("f4")  # many codes as near to one centre as to another
    target = centres(list(rng.integers(1, 4, (40, 6)).astype("f4")), [1] * 40)
    row, distance = assign(codes, target)
    alone = [assign(codes[i : i + 1], target)[0][0] for i in range(0, 2000, 50)]
    assert row[::50].tolist() == alone
    far = cdist(codes, target.codes, "cosine")
    np.testing.assert_allclose(far[np.arange(2000), row], far.min(1), atol=1e-6)
    np.testing.assert_allclose(distance, np.sqrt(2 * far.min(1)), atol=1e-3)


def test_how_long_a_code_is_says_nothing_and_its_direction_all() -> None:
    codes = blobs([40, 30])
    loud = codes * np.random.default_rng(2).uniform(0.01, 100, (70, 1)).astype("f4")
    found = cluster(loud, k=2)
    row, distance = assign(codes, found)
    np.testing.assert_array_equal(row, np.repeat([0, 1], [40, 30]))
    np.testing.assert_array_equal(row, assign(loud, found)[0])
    np.testing.assert_allclose(distance, assign(loud, found)[1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.codes[0]), np.linalg.norm(loud[:40], axis=1).mean(), rtol=1e-4)
    far = assign(np.array([[0, 2, 0], [0, 0, 3]], "f4"), centres([np.array([0, 5, 0], "f4")], [1]))[1]
    np.testing.assert_allclose(far, [0, np.sqrt(2)], atol=1e-6)


HEAPS = [60, 50, 40, 30]


def first(groups: Groups | None = None) -> tuple[Floats, Clusters]:
    codes = blobs(HEAPS)
    found = regroup(codes, NET, k=4)
    assert found is not None
    assert found.events == ()
    return codes, found.clusters


def test_numbers_stay_when_clusters_are_made_anew() -> None:
    codes, old = first()
    assert (old.ids.tolist(), old.next_id, old.version) == ([1, 2, 3, 4], 5, 1)
    more = np.concatenate([codes, blobs([0, 0, 0, 90], seed=4)])  # the smallest becomes the largest
    made = regroup(more, NET, old=old, k=4, seed=9)
    assert made is not None
    assert made.clusters.ids.tolist() == [4, 1, 2, 3]
    assert made.clusters.version == 2
    ids, _ = made.clusters.assign(codes)
    np.testing.assert_array_equal(ids, old.assign(codes)[0])
    assert made.events == ()


def test_a_split_is_said_in_words_and_the_mark_goes_to_both_parts() -> None:
    codes, old = first()
    groups = Groups().mark("membrane", [1, 3], kind="surface")
    halves = codes.copy()
    halves[:25, 5] += 4.0  # the first heap falls apart
    made = regroup(halves, NET, old=old, groups=groups, k=5)
    assert made is not None
    assert sorted(made.clusters.ids.tolist()) == [1, 2, 3, 4, 5]
    assert made.groups.marks() == {1: "membrane", 3: "membrane", 5: "membrane"}
    texts = [event.text for event in made.events]
    assert texts[0] == "cluster 1 split into 1 and 5"
    assert "cluster 5 is marked membrane" in texts[1]
    assert {event.version for event in made.events} == {2}
    assert made.clusters.next_id == 6


def test_numbers_are_never_used_twice() -> None:
    codes, old = first()
    fewer = regroup(codes, NET, old=old, k=3)
    assert fewer is not None
    gone = ({1, 2, 3, 4} - set(fewer.clusters.ids.tolist())).pop()
    assert any(event.kind == "merged" and event.id == gone for event in fewer.events)
    back = regroup(codes, NET, old=fewer.clusters, k=4)
    assert back is not None
    assert 5 in back.clusters.ids
    assert gone not in back.clusters.ids
    assert back.clusters.next_id == 6


def test_the_next_number_is_remembered_when_the_last_clusters_are_gone() -> None:
    codes, old = first()
    old = replace(old, next_id=20)
    same = regroup(codes, NET, old=old, k=4)
    assert same is not None
    assert same.clusters.next_id == 20
    codes[:25, 5] += 4.0
    made = regroup(codes, NET, old=same.clusters, k=5)
    assert made is not None
    assert 20 in made.clusters.ids
    assert made.clusters.next_id == 21


def test_each_sub_volume_of_a_bridge_counts_for_as_many_as_it_stands_for() -> None:
    bridge, olds, news = table([[3, 2], [0, 1]])
    flat = np.zeros((2, EDGE, EDGE, EDGE), "f4")
    old = follow(None, centres(olds, [5, 1]), flat, NET).clusters
    weight = np.array([1, 1, 1, 10, 10, 4], "i8")
    made = follow(old, centres(news, [3, 24]), flat, NET, bridge=Bridge(bridge.before, bridge.after, weight))
    assert made.shared.tolist() == [[3, 20], [0, 4]]
    assert made.clusters.ids.tolist() == [3, 1]


def table(shared: list[list[int]]) -> tuple[Bridge, list[Floats], list[Floats]]:
    """A bridge whose sub-volumes are shared out as the table says, and the centres of both sides."""
    olds = [10 * np.eye(6, dtype="f4")[i] for i in range(len(shared))]
    news = [10 * np.eye(6, dtype="f4")[i] for i in range(len(shared[0]))]
    pairs = [(i, j) for i, row in enumerate(shared) for j, n in enumerate(row) for _ in range(n)]
    return Bridge(np.stack([olds[i] for i, _ in pairs]), np.stack([news[j] for _, j in pairs])), olds, news


def followed(shared: list[list[int]], groups: Groups) -> tuple[Groups, list[str], list[int]]:
    bridge, olds, news = table(shared)
    flat = np.zeros((6, EDGE, EDGE, EDGE), "f4")
    old = follow(None, centres(olds, [sum(row) for row in shared]), flat[: len(olds)], NET).clusters
    counts = [sum(column) for column in zip(*shared, strict=True)]
    made = follow(old, centres(news, counts), flat[: len(news)], NET, bridge=bridge, groups=groups, now=5.0)
    assert made.marks(groups) == made.groups
    return made.groups, [event.text for event in made.events], made.clusters.ids.tolist()


def test_a_new_cluster_of_two_unlike_groups_is_not_marked_and_that_is_said() -> None:
    groups = Groups().mark("membrane", [1]).mark("ribosome-like", [2])
    found, texts, ids = followed([[60, 0, 25], [0, 60, 25]], groups)
    assert ids == [1, 2, 3]
    assert found.marks() == {1: "membrane", 2: "ribosome-like"}
    assert "cluster 3 is not marked: its members were 50 % membrane, 50 % ribosome-like; look at it" in texts


def test_members_of_two_clusters_of_one_group_count_together() -> None:
    groups = Groups().mark("membrane", [1, 2])
    found, texts, ids = followed([[60, 0, 0, 20], [0, 60, 0, 20], [0, 0, 60, 15]], groups)
    assert ids == [1, 2, 3, 4]
    assert found.marks() == {1: "membrane", 2: "membrane", 4: "membrane"}
    assert texts[0] == "cluster 4 is new: members came from several"


def test_members_that_changed_under_a_number_are_told() -> None:
    groups = Groups().mark("membrane", [1])
    # Most of the first went to the second, and it took up others: both are to be looked at.
    found, texts, ids = followed([[20, 60], [0, 40], [80, 0]], groups)
    assert ids == [3, 1]
    assert found.marks() == {1: "membrane"}
    found, texts, ids = followed([[20, 100], [0, 90], [1, 300]], groups)
    assert ids == [1, 3]
    assert texts == ["cluster 2 merged into 3"]
    found, texts, ids = followed([[100, 30], [0, 20]], groups)
    assert (ids, texts) == ([1, 2], ["cluster 2 is not marked, though 60 % of its members were membrane; look at it"])
    found, texts, ids = followed([[40, 0], [200, 0], [0, 300]], Groups().mark("membrane", [2]))
    assert (ids, found.marks()) == ([2, 3], {2: "membrane"})
    found, texts, ids = followed([[40, 0], [10, 1], [90, 0], [90, 0]], groups)
    assert "the mark membrane of cluster 1 is gone with it" in " ".join(texts)
    assert found.marks() == {}


def test_a_mark_whose_members_are_few_is_to_be_looked_at() -> None:
    groups = Groups().mark("membrane", [1])
    found, texts, ids = followed([[50, 0, 0], [45, 60, 0], [45, 0, 60]], groups)
    assert (ids, found.marks()) == ([1, 2, 3], {1: "membrane"})
    assert not texts
    _, texts, _ = followed([[50, 0, 0], [56, 60, 0], [56, 0, 60]], groups)
    assert texts == ["cluster 1 stays membrane, though only 31 % of its members were; look at it"]


def test_numbers_follow_into_the_codes_of_another_network() -> None:
    codes, old = first()
    boxes = NET.decode(codes)
    other = Linear("second", seed=3)
    after = other.encode(boxes)
    assert not np.allclose(codes, after)
    for most in (40, 10_000):
        bridge = boxes_bridge(old, other, NET, lambda: [(boxes[::5], after[::5]), (boxes, after)], most)
        assert bridge is not None
        assert len(bridge.before) == len(bridge.after) == min(most, 216)
        np.testing.assert_allclose(bridge.before[:36], codes[::5], atol=1e-4)
    assert boxes_bridge(old, other, NET, tuple) is None
    with pytest.raises(ValueError, match="not of second"):
        boxes_bridge(old, other, other, tuple)
    for through in (bridge, None):
        made = regroup(after, other, old=old, bridge=through, groups=Groups().mark("membrane", [2]), k=4)
        assert made is not None
        np.testing.assert_array_equal(made.clusters.assign(after)[0], old.assign(codes)[0])
        assert made.clusters.network == other.sha256
        assert made.groups.marks() == {2: "membrane"}


def test_of_old_centres_alone_nothing_follows_where_the_pose_or_the_voxel_changed() -> None:
    _, old = first()
    other = Linear("second", seed=3)
    assert centres_bridge(old, other) is not None
    other.posed = True
    assert centres_bridge(old, other) is None
    assert boxes_bridge(old, other, NET, lambda: [(old.decoded, old.codes)]) is None
    other.posed, other.voxel_a = False, 10.0
    assert centres_bridge(old, other) is None


def test_clusters_without_shared_members_are_paired_by_their_looks() -> None:
    _, old = first()
    new = Centres(old.codes[::-1], old.counts[::-1], old.spread, 1.0)
    made = follow(old, new, old.decoded[::-1].copy(), NET)
    assert made.clusters.ids.tolist() == [4, 3, 2, 1]


def test_a_number_that_is_marked_is_not_given_to_a_cluster_when_the_clusters_were_lost() -> None:
    made = regroup(blobs([9, 8]), NET, groups=Groups().mark("membrane", [17]), k=2)
    assert made is not None
    assert made.clusters.ids.tolist() == [18, 19]
    assert made.groups.marks() == {17: "membrane"}


def test_a_stopped_regrouping_gives_nothing() -> None:
    assert regroup(blobs(HEAPS), NET, k=4, stop=lambda: True) is None


def test_averages_are_of_the_boxes_as_they_were() -> None:
    codes, old = first()
    boxes = NET.decode(codes) + np.random.default_rng(3).normal(size=(len(codes), EDGE, EDGE, EDGE)).astype("f4")
    boxes[2] = np.nan
    parts = [slice(0, 50), slice(50, 180)]
    made = regroup(codes, NET, old=old, boxes=lambda: [(boxes[p].astype("f2"), codes[p]) for p in parts], k=4)
    assert made is not None
    label = made.clusters.assign(codes)[0]
    row = made.clusters.row(1)
    mine = (label == 1) & (np.arange(len(codes)) != 2)
    assert made.clusters.averaged[row] == mine.sum()
    np.testing.assert_allclose(made.clusters.average[row], boxes[mine].mean(0), atol=2e-2)
    empty = Averages(2, EDGE)
    empty.add(boxes[:1], np.array([-1], "i4"))
    assert not empty.averages().any()
    assert empty.counts.tolist() == [0, 0]


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    _, clusters = first()
    events = (Event("split", 3, (9, 10), "cluster 3 split into 3, 9 and 10", 2, 12.5),)
    clusters = replace(clusters, events=events, seed=7, posed=True, next_id=11, written=3.5)
    path = tmp_path / "new" / "clusters.h5"
    write_clusters(path, clusters)
    back = read_clusters(path)
    assert back is not None
    for name in Clusters.__slots__:
        one, other = getattr(clusters, name), getattr(back, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, name
    assert [p.name for p in path.parent.iterdir()] == ["clusters.h5"]
    assert read_clusters(tmp_path / "none.h5") is None
    with pytest.raises(KeyError, match="there is no cluster 99"):
        back.row(99)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    _, clusters = first()
    path = tmp_path / "clusters.h5"
    write_clusters(path, clusters)
    whole = path.read_bytes()

    def refused(text: str) -> None:
        with pytest.raises(ClustersError, match=text) as caught:
            read_clusters(path)
        assert str(path) in str(caught.value)
        assert "move it away" in str(caught.value)

    for short in (b"", whole[:100], whole[: len(whole) // 2], b"no HDF5 at all"):
        path.write_bytes(short)
        refused("damaged")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file.attrs["layout"] = "beamsieve classes 1"
    refused("known is 'beamsieve clusters 1'")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["ids"][1] = file["ids"][0]
    refused("used twice")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["counts"]
        file["counts"] = np.ones(3, "i8")
    refused("do not fit")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["codes"][0, 0] = np.nan
    refused("not finite")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, clusters = first()
    path = tmp_path / "clusters.h5"
    write_clusters(path, clusters)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_clusters(path, replace(clusters, version=2))
    back = read_clusters(path)
    assert back is not None
    assert back.version == 1
    assert [p.name for p in tmp_path.iterdir()] == ["clusters.h5"]
