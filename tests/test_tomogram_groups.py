"""Groups of clusters: label values, marks, and a file that people, the page and commands change."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from beamsieve.models.tomograms.groups import MOST, PALETTE, Group, Groups, GroupsError
from beamsieve.models.tomograms.groups_file import groups_text, parse_groups, read_groups, write_groups
from beamsieve.stream.formats import copick
from beamsieve.stream.sinks.tomograms.marks import GroupsFile, claimed
from hypothesis import given, settings
from hypothesis import strategies as st

TWO = Groups().mark("membrane", [7, 3], kind="surface").mark("ribosome-like", [12], kind="globule")


def mistakes(text: str) -> list[str]:
    with pytest.raises(GroupsError) as caught:
        parse_groups(text, "groups.yaml")
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return list(caught.value.mistakes)


def test_label_values_follow_the_order_of_the_groups() -> None:
    assert TWO.names == ("membrane", "ribosome-like")
    assert TWO.classes == ("background", "membrane", "ribosome-like")
    assert TWO.groups[0].clusters == (3, 7)
    found = TWO.values(np.array([[3, 12], [0, 5]]))
    assert found.dtype == np.uint8
    assert found.tolist() == [[1, 2], [0, 0]]
    assert TWO.value("ribosome-like") == 2
    group = TWO.of(12)
    assert group is not None
    assert group.name == "ribosome-like"
    assert TWO.of(13) is None
    assert TWO.unknown([3, 7]) == (12,)
    with pytest.raises(KeyError, match="no group is named 'carbon'; there are: membrane, ribosome-like"):
        TWO.value("carbon")


def test_a_mark_moves_a_cluster_and_a_group_keeps_its_value() -> None:
    moved = TWO.mark("ribosome-like", [3])
    assert moved.marks() == {7: "membrane", 3: "ribosome-like", 12: "ribosome-like"}
    empty = TWO.unmark([3, 7, 99])
    assert empty.names == TWO.names
    assert empty.marks() == {12: "ribosome-like"}
    assert empty
    assert not empty.unmark([12])
    assert not Groups().add("membrane", "surface")
    assert TWO.remove("membrane").value("ribosome-like") == 1
    assert TWO.mark("membrane", [9]).groups[0].kind == "surface"


def test_colours_are_given_by_kind_and_differ() -> None:
    assert TWO.groups[0].colour == PALETTE["surface"][0]
    many = Groups(tuple(Group(f"group {n}", "surface") for n in range(MOST)))
    assert len({group.colour for group in many.groups}) == MOST
    assert TWO.mark("membrane", [3], kind="other").groups[0].colour in PALETTE["other"]
    assert TWO.mark("membrane", [3], colour="#ABCDEF").groups[0].colour == "#abcdef"
    assert TWO.mark("membrane", [1]).groups[0].colour == TWO.groups[0].colour


@pytest.mark.parametrize("name", ["", " ", "a/b", "../x", "-x", "x.", "x ", "a\nb", "a" * 41, "_x", "a:b", "a*"])
def test_names_that_make_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(GroupsError, match="makes no file name"):
        Groups().add(name)


@pytest.mark.parametrize("name", ["Background", "other", "labels", "unmarked", "CON"])
def test_names_with_another_meaning_are_refused(name: str) -> None:
    with pytest.raises(GroupsError, match="a word with a meaning of its own"):
        Groups().add(name)


def test_names_in_other_alphabets_and_with_spaces_are_fine_until_files_would_be_the_same() -> None:
    groups = Groups().add("carbon edge").add("Рибосома").add("70S (b)".replace("(b)", "b"))
    assert groups.groups[0].file_name == "carbon-edge"
    with pytest.raises(GroupsError, match="'Carbon-Edge' and 'carbon edge' would be the same file name"):
        groups.add("Carbon-Edge")
    for name in ("carbon_edge", "carbon edge-"):
        with pytest.raises(GroupsError, match="would be the same file name"):
            groups.add(name)
        assert copick.clean(name) == copick.clean("carbon edge"), "one would replace the other's picks"


def test_what_is_written_is_read_and_is_plain_yaml(tmp_path: Path) -> None:
    path = tmp_path / "groups.yaml"
    assert read_groups(path) == Groups()
    for groups in (Groups(), TWO, TWO.add("no").add("12").add("2026-11-20").add("Рибосома")):
        write_groups(path, groups)
        assert read_groups(path) == groups
        assert [g["name"] for g in yaml.safe_load(path.read_text("utf-8"))["groups"]] == list(groups.names)
    text = groups_text(TWO)
    assert text.startswith("# Groups of clusters")
    assert "comments of your own are gone" in text
    assert '  - {name: membrane, kind: surface, clusters: [3, 7], colour: "#e6c229"}' in text
    assert all(len(line) <= 120 for line in text.splitlines())


names = st.text("abcZ 09é.+-_", min_size=1, max_size=12).filter(lambda n: n[0].isalnum() and n[-1] not in " .")


@settings(max_examples=40)
@given(st.dictionaries(st.integers(1, 500), names, max_size=15))
def test_any_groups_survive_the_file(marks: dict[int, str]) -> None:
    groups = Groups()
    for number, name in marks.items():
        try:
            groups = groups.mark(name, [number])
        except GroupsError:
            continue
    assert parse_groups(groups_text(groups)) == groups


def test_a_file_by_hand_may_be_short() -> None:
    found = parse_groups("groups:\n  - name: membrane\n    clusters:\n      - 3\n  - {name: junk, clusters: }\n")
    assert found.marks() == {3: "membrane"}
    assert found.groups[1].kind == "other"
    assert parse_groups("") == parse_groups("# nothing\n") == parse_groups("groups:\n") == Groups()


def test_every_mistake_is_told_with_its_line_all_at_once() -> None:
    text = """\
groups:
  - name: membrane
    kind: surfaces
    clusters: [3, 0]
    colour: yellow
  - name: membrane
    clusters:
      - 4
      - 3
"""
    found = mistakes(text)
    assert found == [
        "groups.yaml:3: groups.0.kind: 'surfaces' is not one of surface, globule, other",
        "groups.yaml:5: groups.0.colour: 'yellow' is no colour; write it as \"#e6c229\", with quotes",
        "groups.yaml:4: groups.0.clusters.1: 0 is no number of a cluster; they count from 1",
        "groups.yaml:6: groups.1.name: 'membrane' and 'membrane' would be the same file name; rename one, or join them",
        "groups.yaml:9: groups.1.clusters.1: cluster 3 is twice; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("groups:\n  - {name: a, cluster: [3]}\n", 2, "groups.0.cluster: unknown; did you mean clusters?"),
        ("groups:\n- {name: a, clusters: [3, x]}\n", 2, "'x' is no number of a cluster"),
        ("groups:\n- {name: a, clusters: [1.5]}\n", 2, "'1.5' is no number"),
        ("groups:\n- {name: a, clusters: [[3]]}\n", 2, "'a list' is no number"),
        ("groups:\n- {name: a, clusters: 3}\n", 2, "a list is expected; write such as [3, 7, 12]"),
        ("groups:\n- {clusters: [3]}\n", 2, "has no name; add name: membrane"),
        ("groups:\n- {name: [a], clusters: [3]}\n", 2, "groups.0.name: is a list; write a word"),
        ("groups:\n- membrane\n", 2, "groups.0: cannot be read; write {name: membrane"),
        ("groups: membrane\n", 1, "a list is expected"),
        ("- {name: a}\n", 1, "cannot be read; write groups: and a list of them"),
        ("group: []\n", 1, "group: unknown; did you mean groups?"),
        ("groups:\n- {name: a, name: b}\n", 2, "said twice; keep one"),
        ("groups:\n- {name: a, clusters: [3}\n", 2, "not YAML"),
        ("groups:\n- {name: a, clusters: [3]}\n- {name: b, clusters: [3]}\n", 3, "is in 'a' and in 'b'; keep one"),
    ],
)
def test_each_mistake_names_its_line_and_the_remedy(text: str, line: int, words: str) -> None:
    found = mistakes(text)
    assert len(found) == 1
    assert found[0].startswith(f"groups.yaml:{line}: ")
    assert words in found[0]


def test_too_many_groups_and_no_text_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"  - {{name: g{n}}}\n" for n in range(MOST + 1))
    assert "21 groups: at most 20 can be told apart; join some" in mistakes("groups:\n" + rows)[0]
    path = tmp_path / "groups.yaml"
    path.write_bytes(b"groups:\n- {name: \xff}\n")
    with pytest.raises(GroupsError, match=r"groups.yaml:2: not UTF-8"):
        read_groups(path)
    path.write_bytes(b"\xef\xbb\xbfgroups:\n- {name: a, clusters: [1]}\n")
    assert read_groups(path).marks() == {1: "a"}


def test_the_file_is_read_again_when_a_person_saved_it(tmp_path: Path) -> None:
    file = GroupsFile(tmp_path)
    assert file.changed()
    assert file.read() == Groups()
    assert not file.changed()
    write_groups(file.path, TWO)
    assert file.changed()
    assert file.read() == TWO
    assert not file.changed()
    assert file.change(lambda groups: groups.unmark([3])).marks() == {7: "membrane", 12: "ribosome-like"}
    assert not file.changed()
    file.path.unlink()
    assert file.changed()


def test_a_change_that_changes_nothing_leaves_a_persons_comments(tmp_path: Path) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text("# mine\ngroups:\n- {name: membrane, clusters: [3]}\n")
    file = GroupsFile(tmp_path)
    file.change(lambda groups: groups.unmark([99]))
    assert path.read_text().startswith("# mine")
    file.change(lambda groups: groups.mark("membrane", [4]))
    assert "# mine" not in path.read_text()
    path.write_text("groups: 3\n")
    with pytest.raises(GroupsError, match="a list is expected"):
        file.change(lambda groups: groups.mark("membrane", [5]))
    assert path.read_text() == "groups: 3\n"


def test_writers_do_not_lose_each_others_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def work(name: str, first: int) -> None:
        file = GroupsFile(tmp_path)
        for number in range(first, first + 10):
            file.change(lambda groups, number=number: groups.mark(name, [number]))  # type: ignore[misc]

    threads = [threading.Thread(target=work, args=(f"group {n}", 1 + 10 * n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_groups(tmp_path / "groups.yaml").marks()) == list(range(1, 41))


def test_one_process_makes_the_clusters(tmp_path: Path) -> None:
    with claimed(tmp_path) as mine, claimed(tmp_path) as other:
        assert (mine, other) == (True, False)
    with claimed(tmp_path) as mine:
        assert mine
