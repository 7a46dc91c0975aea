"""``beamsieve cluster tomograms`` on a session: clusters, marks, the sheet and the records say the same."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import typer
from beamsieve.models.tomograms.book import Clusters, read_clusters, write_clusters
from beamsieve.models.tomograms.bundles import untrained
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.groups_file import read_groups
from beamsieve.models.tomograms.regroup import regroup
from beamsieve.stream.commands import cluster_run
from beamsieve.stream.commands.cluster_marks import changes
from beamsieve.stream.commands.cluster_tomograms import cluster_tomograms
from beamsieve.stream.sinks.tomograms.marks import claimed
from beamsieve.stream.sinks.tomograms.mined import Kept, MinedTomogram, Picked
from beamsieve.stream.sinks.tomograms.places import Places
from beamsieve.stream.sinks.tomograms.record import encode, read
from typer.testing import CliRunner, Result

Floats = npt.NDArray[np.float32]
EDGE = 8


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Codec]:
    folder = tmp_path_factory.mktemp("models")
    return [Codec(untrained(folder, f"net-{n}", edge=EDGE, channels=4, codes=16, seed=n), threads=1) for n in (1, 2)]


def boxes(kind: int, n: int, seed: int) -> Floats:
    """A plane, a ball, or a rod, with a little noise; mean 0 and s.d. 1."""
    z, y, x = np.indices((EDGE,) * 3) - EDGE // 2
    shape = [abs(z) < 2, z**2 + y**2 + x**2 < 9, (abs(y) < 2) & (abs(x) < 2)][kind]
    found = shape + 0.05 * np.random.default_rng(seed).normal(size=(n, EDGE, EDGE, EDGE))
    found -= found.mean((1, 2, 3), keepdims=True)
    found /= found.std((1, 2, 3), keepdims=True)
    return np.asarray(found, np.float32)


def mine(folder: Path, name: str, codec: Codec, counts: tuple[int, int, int], seed: int = 0) -> None:
    """A tomogram's record as it is mined: some of each kind, every second of them kept."""
    made = np.concatenate([boxes(kind, n, seed + kind) for kind, n in enumerate(counts)])
    n = len(made)
    xyz = np.random.default_rng(seed).uniform(0, 90, (n, 3)).astype("f4")
    rows = np.arange(0, n, 2, dtype="i4")
    picked = Picked.of(xyz, np.ones(n, "f4"), codec.encode(made))
    record = MinedTomogram(
        name=name,
        path=folder / f"{name}.mrc",
        shape=(50, 90, 90),
        voxel_a=14.2,
        working_voxel_a=14.2,
        picked=picked,
        network=codec.name,
        network_sha256=codec.sha256,
        threshold=3.0,
        edge=EDGE,
        kept=Kept(rows, made[rows].astype("f2")),
    )
    path = Places(folder).record(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(record, stem=name))


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(cluster_tomograms)
    return CliRunner().invoke(app, [*map(str, arguments), "--threads", "1"])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(code: int, text: str, *arguments: object) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert "Traceback" not in result.output


def clusters_in(folder: Path) -> Clusters:
    found = read_clusters(folder / "clusters.h5")
    assert found is not None
    return found


def test_clusters_marks_sheet_and_records_say_the_same(tmp_path: Path, networks: list[Codec]) -> None:
    codec = networks[0]
    counts = {"TS_01": (20, 10, 6), "sub/TS_02": (10, 12, 4)}
    for seed, (name, of_kind) in enumerate(counts.items()):
        mine(tmp_path, name, codec, of_kind, 10 * seed)
    mine_args = (tmp_path, "--k", 3, "--bundle", codec.bundle.path)
    result = done(*mine_args, "--json", tmp_path / "out.json")
    found = clusters_in(tmp_path)
    assert found.counts.tolist() == [30, 22, 10]
    assert (found.network, found.name, found.version) == (codec.sha256, "net-1", 1)
    np.testing.assert_allclose(found.decoded, codec.decode(found.codes), atol=1e-5)
    assert found.averaged.tolist() == [15, 11, 5]
    assert np.corrcoef(found.average[1].ravel(), boxes(1, 1, 0).ravel())[0, 1] > 0.98
    first = [(read(Places(tmp_path).record(name), slices=False), of_kind) for name, of_kind in counts.items()]
    for record, of_kind in first:
        assert record.picked.cluster.tolist() == np.repeat([1, 2, 3], of_kind).tolist()
        assert record.clusters_version == 1
        assert not record.picked.label.any()
    assert (tmp_path / "groups.yaml").read_text("utf-8").endswith("groups: []\n")
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [row["id"] for row in report["clusters"]] == [1, 2, 3]
    assert report["clusters"][0]["share"] == pytest.approx(30 / 62)
    assert report["tomograms"] == 2
    assert "3 clusters of 62 sub-volumes, version 1; net-1" in result.output

    before = (tmp_path / "clusters.png").read_bytes()
    done(tmp_path, "--mark", "membrane=1", "--kind", "surface")
    done(tmp_path, "--mark", "ball=2-3")
    result = done(tmp_path, "--unmark", "3")
    groups = read_groups(tmp_path / "groups.yaml")
    assert groups.marks() == {1: "membrane", 2: "ball"}
    assert groups.groups[0].kind == "surface"
    assert "membrane (surface): clusters 1; 30 sub-volumes (48.4 %)" in result.output
    assert (tmp_path / "clusters.png").read_bytes() != before
    assert clusters_in(tmp_path).version == 1

    mine(tmp_path, "TS_03", codec, (0, 0, 60), 50)
    result = done(*mine_args)
    assert "membrane (surface): clusters 1; 30 sub-volumes (24.6 %)" in result.output
    found = clusters_in(tmp_path)
    assert (found.version, found.ids.tolist()) == (2, [3, 1, 2])
    record = read(Places(tmp_path).record("TS_01"), slices=False)
    assert record.picked.cluster.tolist() == [1] * 20 + [2] * 10 + [3] * 6
    assert record.classes == ("membrane", "ball")
    assert record.counts == {"membrane": 20, "ball": 10, "unmarked": 6}
    assert (tmp_path / "star" / "particles_membrane.star").exists()
    assert record.colours == tuple(group.colour for group in groups.groups)
    listed = done(tmp_path, "--list")
    assert [line.split()[:2] for line in listed.output.splitlines()[1:4]] == [
        ["1", "membrane"],
        ["2", "ball"],
        ["3", "–"],
    ]


def test_codes_of_two_networks_are_refused_and_one_can_be_chosen(tmp_path: Path, networks: list[Codec]) -> None:
    one, other = networks
    mine(tmp_path, "TS_01", one, (6, 6, 6))
    mine(tmp_path, "TS_02", one, (6, 6, 6), 1)
    mine(tmp_path, "TS_03", other, (6, 6, 6), 2)
    refused(2, "codes of 2 networks cannot be compared", tmp_path)
    both = f"net-1 {one.sha256[:12]} (2 tomograms), net-2 {other.sha256[:12]} (1 tomograms)"
    refused(2, both, tmp_path)
    refused(2, "--network net-3: is none of", tmp_path, "--network", "net-3")
    assert not (tmp_path / "clusters.h5").exists()
    # A network that the session trained is found by its SHA-256, whatever its name.
    (tmp_path / "models" / "7").mkdir(parents=True)
    for ending in (".pt", ".json"):
        source = other.bundle.path.with_suffix(ending)
        (tmp_path / "models" / "7" / f"renamed{ending}").write_bytes(source.read_bytes())
    done(tmp_path, "--network", other.sha256[:10], "--k", 3)
    assert clusters_in(tmp_path).counts.sum() == 18
    assert read(Places(tmp_path).record("TS_03"), slices=False).clusters_version == 1
    assert read(Places(tmp_path).record("TS_01"), slices=False).clusters_version == 0


def test_numbers_and_marks_follow_into_another_network(tmp_path: Path, networks: list[Codec]) -> None:
    one, other = networks
    mine(tmp_path, "TS_01", one, (20, 12, 6))
    (tmp_path / "models").mkdir()
    for ending in (".pt", ".json"):
        source = one.bundle.path.with_suffix(ending)
        (tmp_path / "models" / source.name).write_bytes(source.read_bytes())
    done(tmp_path, "--k", 3)
    done(tmp_path, "--mark", "membrane=1", "--mark", "ball=3")
    # Rods outnumber all others now, and codes are another network's.
    mine(tmp_path, "TS_01", other, (20, 12, 30))
    done(tmp_path, "--k", 3, "--bundle", other.bundle.path)
    found = clusters_in(tmp_path)
    assert (found.network, found.version, found.ids.tolist()) == (other.sha256, 2, [3, 1, 2])
    record = read(Places(tmp_path).record("TS_01"), slices=False)
    assert record.picked.label.tolist() == [1] * 20 + [0] * 12 + [2] * 30


def test_marks_reach_what_the_network_before_encoded(tmp_path: Path, networks: list[Codec]) -> None:
    one, other = networks
    mine(tmp_path, "TS_01", one, (8, 6, 4))
    done(tmp_path, "--k", 3, "--bundle", one.bundle.path)
    path = Places(tmp_path).record("TS_01")
    before = read(path, kept=True)
    # As the daemon leaves it when the network was trained further: the numbers followed, the codes are of before.
    path.write_bytes(encode(replace(before, network_sha256=other.sha256, network=other.name), stem="TS_01"))
    mine(tmp_path, "TS_02", one, (4, 4, 4))
    done(tmp_path, "--mark", "plane=1")
    for name in ("TS_01", "TS_02"):
        found = read(Places(tmp_path).record(name)).picked
        assert ((found.label == 1) == (found.cluster == 1)).all()
        assert found.label.any()
    (tmp_path / "settings.json").write_text("{")
    version = clusters_in(tmp_path).version
    refused(
        2, "settings.json: cannot be used (Invalid JSON", tmp_path, "--network", "net-1", "--bundle", one.bundle.path
    )
    assert clusters_in(tmp_path).version == version


def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, networks: list[Codec]) -> None:
    one, other = networks
    refused(2, "no such folder; name the folder of a session", tmp_path / "none")
    refused(2, "holds no mined tomograms", tmp_path)
    refused(2, "has no clusters yet; make them", tmp_path, "--list")
    refused(2, "has no clusters yet", tmp_path, "--mark", "membrane=1")
    mine(tmp_path, "TS_01", one, (6, 6, 6))
    refused(2, "no bundle is the network net-1", tmp_path)
    refused(2, "is another network than net-1", tmp_path, "--bundle", other.bundle.path)
    refused(2, "add --mark", tmp_path, "--kind", "surface")
    bundle = ("--bundle", one.bundle.path)
    result = done(tmp_path, *bundle)
    assert "18 codes make 9 clusters, not 100" in result.stderr
    refused(2, "leave it out, or --mark", tmp_path, "--list", "--unmark", "3")
    refused(2, "--mark: there is no cluster 12; see --list", tmp_path, "--mark", "membrane=1,12")
    refused(2, "makes no file name", tmp_path, "--mark", "a/b=1")
    (tmp_path / "groups.yaml").write_text("groups:\n- {name: a, clusters: [1]}\n- {name: b, clusters: [1, 99]}\n")
    refused(2, f"{tmp_path / 'groups.yaml'}:3: groups.1.clusters.0: cluster 1 is in 'a' and in 'b'", tmp_path, *bundle)
    (tmp_path / "groups.yaml").write_text("groups:\n- {name: b, clusters: [1, 99]}\n")
    assert "marks 99, but there are no such clusters" in done(tmp_path, "--list").stderr
    (tmp_path / "clusters.h5").write_bytes(b"no HDF5")
    refused(1, "is no file of clusters, or damaged", tmp_path, "--list")
    refused(1, "move it away", tmp_path, *bundle)
    (tmp_path / "clusters.h5").unlink()
    Places(tmp_path).record("TS_01").write_bytes(b"no HDF5")
    refused(1, "is no record of a tomogram, or damaged", tmp_path, *bundle)


def test_while_a_daemon_makes_the_clusters_only_marks_are_taken(tmp_path: Path, networks: list[Codec]) -> None:
    codec = networks[0]
    mine(tmp_path, "TS_01", codec, (6, 6, 6))
    done(tmp_path, "--k", 3, "--bundle", codec.bundle.path)
    with claimed(tmp_path):
        refused(2, "it takes marks (--mark), or stop it first", tmp_path, "--bundle", codec.bundle.path)
        result = done(tmp_path, "--mark", "membrane=1")
    assert "another process makes the clusters of this session and takes the marks" in result.stderr
    assert read_groups(tmp_path / "groups.yaml").marks() == {1: "membrane"}
    assert not read(Places(tmp_path).record("TS_01"), slices=False).picked.label.any()


def test_a_mark_made_while_clusters_are_made_is_not_lost(
    tmp_path: Path, networks: list[Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = networks[0]
    mine(tmp_path, "TS_01", codec, (8, 6, 4))
    args = (tmp_path, "--k", 3, "--bundle", codec.bundle.path)
    done(*args)

    def meanwhile(path: Path, clusters: Clusters) -> None:
        (tmp_path / "groups.yaml").write_text("groups:\n- {name: late, clusters: [2]}\n")
        write_clusters(path, clusters)

    monkeypatch.setattr(cluster_run, "write_clusters", meanwhile)
    done(*args)
    record = read(Places(tmp_path).record("TS_01"), slices=False)
    assert record.counts == {"late": 6, "unmarked": 12}


def test_a_tomogram_mined_anew_meanwhile_by_another_network_is_left_alone(
    tmp_path: Path, networks: list[Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = networks[0]
    mine(tmp_path, "TS_01", codec, (8, 6, 4))

    def meanwhile(path: Path, clusters: Clusters) -> None:
        mine(tmp_path, "TS_01", networks[1], (8, 6, 4))
        write_clusters(path, clusters)

    monkeypatch.setattr(cluster_run, "write_clusters", meanwhile)
    done(tmp_path, "--k", 3, "--bundle", codec.bundle.path)
    record = read(Places(tmp_path).record("TS_01"), slices=False)
    assert (record.network, record.clusters_version) == ("net-2", 0)
    assert not record.picked.cluster.any()


def test_a_signal_ends_it_before_anything_is_written(
    tmp_path: Path, networks: list[Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = networks[0]
    mine(tmp_path, "TS_01", codec, (6, 6, 6))
    real = regroup

    def signalled(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(cluster_run, "regroup", signalled)
    refused(143, "stopped; nothing was written", tmp_path, "--bundle", codec.bundle.path)
    assert not (tmp_path / "clusters.h5").exists()


def test_pages_that_are_no_more_go(tmp_path: Path, networks: list[Codec]) -> None:
    codec = networks[0]
    mine(tmp_path, "TS_01", codec, (6, 6, 6))
    for name in ("clusters-2.png", "clusters-of-mine.png"):
        (tmp_path / name).write_bytes(b"old")
    done(tmp_path, "--bundle", codec.bundle.path)
    assert not (tmp_path / "clusters-2.png").exists()
    assert (tmp_path / "clusters-of-mine.png").exists()


@pytest.mark.parametrize(
    ("mark", "unmark", "kind", "words"),
    [
        (["membrane"], [], None, "write a name, = and numbers of clusters"),
        (["=3"], [], None, "write a name, ="),
        (["m=3,x"], [], None, "'x' is no number of a cluster"),
        (["m="], [], None, "'' is no number"),
        (["m=5-3"], [], None, "'5-3' is no range"),
        (["m=0"], [], None, "'0' is no range"),
        ([], ["3;4"], None, "--unmark 3;4: '3;4' is no number"),
        (["m=3"], [], "thing", "--kind thing: is not one of surface, globule, other"),
        (["m=3", "n=3"], [], None, "cluster 3 is for m and for n; keep one"),
        (["m=3,4"], ["4"], None, "--unmark: cluster 4 is in --mark as well; keep one"),
        (["m=1-2000000000"], [], None, "is no range"),
    ],
)
def test_marks_are_checked_as_they_are_typed(mark: list[str], unmark: list[str], kind: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=r"--(mark|unmark|kind)") as caught:
        changes(mark, unmark, kind, range(10))
    assert words in str(caught.value)
