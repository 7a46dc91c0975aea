"""Sorting a session's particles into classes: every particle once, whatever comes, changes, breaks or is killed."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.matching2d import Change
from beamsieve.stream.beamlines.class_marks import FILE, ClassMarks
from beamsieve.stream.beamlines.class_settings import ClassSettings
from beamsieve.stream.beamlines.class_watch import DRAINED_S, STOPPED_S, ClassWatch
from beamsieve.stream.beamlines.class_worker import LiveClasses
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.live.page import Refused
from beamsieve.stream.sinks.picks.classes_file import read_classes, read_labels
from beamsieve.tests.class_sessions import PIXEL_A, SIZE, Blur, Session, particles, picked, purity, write_record

EACH = 30


def fill(directory: Path, records: int, first: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Write records of EACH particles; gives which shape each particle is."""
    kinds = {}
    for at in range(first, first + records):
        images, found = particles(EACH, at)
        write_record(directory, f"grid/m{at}.mrc", images)
        kinds[f"grid/m{at}.mrc.h5"] = found
    return kinds


@pytest.fixture
def ready(tmp_path: Path) -> Session:
    """A session of three records whose particles are classified."""
    fill(tmp_path, 3)
    session = Session(tmp_path).begin()
    session.settle()
    return session


def all_once(session: Session, count: int) -> None:
    """Every particle has a label, and is in the averages once."""
    assert sum(len(labels) for labels in session.labels().values()) == count
    assert session.work.book is not None
    assert session.averaged() == session.work.book.classified + session.work.book.went
    assert session.keeping.current().particles == session.work.book.classified


# The first classes, and more


def test_particles_wait_for_the_first_classes_and_are_sorted_by_shape(tmp_path: Path) -> None:
    kinds = fill(tmp_path, 1)
    session = Session(tmp_path).begin()
    session.settle()
    waiting = session.keeping.current()
    assert (waiting.state, waiting.have, waiting.need, waiting.particles) == ("waiting", 30, 60, 0)
    assert session.facts.waiting() == 30
    kinds |= fill(tmp_path, 3, first=1)
    session.settle()
    found = session.keeping.current()
    assert (found.state, found.particles, found.unlabelled) == ("ready", 120, 0)
    all_once(session, 120)
    labels = session.labels()
    assert purity(np.concatenate(list(labels.values())), np.concatenate([kinds[file] for file in labels])) > 0.95
    assert [view.count for view in found.classes] == sorted((view.count for view in found.classes), reverse=True)
    assert sum(view.count for view in found.classes) == 120
    assert found.pixel_a == pytest.approx(SIZE * PIXEL_A / 64)
    largest = found.classes[0]
    assert largest.average.shape == (64, 64)
    assert 10 <= len(largest.members) <= 16
    assert session.facts.passes()["first"] == 1


def test_averages_are_of_the_recorded_images_and_not_of_denoised_ones(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    session = Session(tmp_path, denoiser=Blur(4.0)).begin()
    session.settle()
    view = session.keeping.current().classes[0]
    assert view.denoised_average is not None
    fine = [float(np.abs(np.diff(image, axis=1)).mean()) for image in (view.average, view.denoised_average)]
    assert fine[0] > 1.5 * fine[1], "a blurred particle has no fine detail, the recorded ones' average does"


def test_what_comes_later_is_labelled_at_once_and_classes_are_made_anew_as_the_session_grows(ready: Session) -> None:
    before = ready.labels()
    kinds = fill(ready.directory, 1, first=3)
    ready.work.hear("grid/m3.mrc", EACH, ready.clock.now)
    ready.clock.now += 2.5
    ready.settle()
    all_once(ready, 120)
    assert ready.facts.pick_to_class_s() == 2.5
    assert {file: labels.tolist() for file, labels in ready.labels().items() if file in before} == {
        file: labels.tolist() for file, labels in before.items()
    }, "what had a class keeps it"
    assert ready.facts.passes()["growth"] == 0
    current = ready.keeping.current()
    assert sum(view.growth_per_min for view in current.classes) > 0
    kinds |= fill(ready.directory, 4, first=4)
    ready.settle()
    all_once(ready, 240)
    assert ready.facts.passes()["growth"] == 1
    labels = ready.labels()
    assert purity(np.concatenate([labels[f] for f in kinds]), np.concatenate(list(kinds.values()))) > 0.95
    numbers = {view.id for view in current.classes} & {view.id for view in ready.keeping.current().classes}
    assert numbers, "classes keep their numbers"


def test_a_record_that_comes_or_changes_during_a_pass_is_in_the_new_book_once(ready: Session) -> None:
    old = ready.work.book
    assert old is not None
    numbers = old.classes.ids
    fill(ready.directory, 4, first=3)
    ready.work.look()
    while ready.work.going_over is None or ready.work.going_over.done == 0:
        ready.work.step()
        time.sleep(0.001)
    assert ready.work.going_over.why == "growth"
    assert old.classes.ids == numbers != ready.work.going_over.book.classes.ids, "the old ones stay in force"
    fill(ready.directory, 1, first=7)
    ready.work.hear("grid/m7.mrc", EACH, ready.clock.now)
    images, _ = particles(EACH, 0)
    write_record(ready.directory, "grid/m0.mrc", images[:10])
    ready.work.hear("grid/m0.mrc", 10, ready.clock.now)
    while ready.work.book is old:
        ready.work.step()
    assert ready.work.book is not None
    assert not ready.work.book.stale(ready.work.records.known), "not one label is missing when it takes over"
    ready.settle()
    all_once(ready, 8 * EACH - 20)
    ready.clock.now += 100
    ready.settle()
    assert ready.work.book is not None
    assert ready.work.book.went == 0
    all_once(ready, 8 * EACH - 20)


def test_the_metrics_say_what_the_page_says(ready: Session) -> None:
    views = ready.keeping.current().classes
    ready.marks.put(views[0].id, "bad", "Ana", views[0].since)
    ready.clock.now += 5
    ready.settle()
    metrics = Metrics("cryoem_picks")
    metrics.classed = ready.facts
    ask = metrics.registry().get_sample_value
    assert ask("beamsieve_classes", {"mark": "bad"}) == 1
    assert ask("beamsieve_classes", {"mark": "unmarked"}) == len(views) - 1
    assert ask("beamsieve_class_particles", {"mark": "bad"}) == views[0].count
    assert ask("beamsieve_class_resolution_angstrom", {"which": "best"}) == min(
        view.resolution_a for view in views if np.isfinite(view.resolution_a)
    )
    assert ask("beamsieve_class_waiting_particles") == 0
    assert ask("beamsieve_class_passes_total", {"why": "first"}) == 1
    assert ask("beamsieve_class_model_info", {"name": "blur", "sha256": ready.denoiser.sha256, "tuned": "false"}) == 1


# What changes on the disk


def test_a_moved_threshold_keeps_the_labels_of_what_stays_and_averages_follow(ready: Session) -> None:
    before = ready.labels()["grid/m1.mrc.h5"]
    images, _ = particles(EACH, 1)
    write_record(ready.directory, "grid/m1.mrc", images[5:], first=5)
    calls = ready.denoiser.calls
    ready.settle()
    assert ready.denoiser.calls == calls, "nothing is new"
    assert ready.labels()["grid/m1.mrc.h5"].tolist() == before[5:].tolist()
    assert ready.work.book is not None
    assert ready.work.book.went == 5
    all_once(ready, 85)
    ready.clock.now += 30
    ready.settle()
    assert ready.work.book.went == 0
    assert ready.averaged() == 85
    assert ready.facts.passes()["changed"] == 1
    write_record(ready.directory, "grid/m1.mrc", images)
    ready.settle()
    all_once(ready, 90)
    assert (ready.labels()["grid/m1.mrc.h5"][5:] == before[5:]).mean() > 0.9, "at most the centres moved a little"


def test_the_same_places_in_another_box_are_other_particles(ready: Session) -> None:
    write_record(ready.directory, "grid/m1.mrc", particles(EACH, 1)[0], pixel_a=PIXEL_A * 2)
    ready.settle()
    assert not ready.labels()["grid/m1.mrc.h5"].any()
    assert ready.work.book is not None
    assert ready.work.book.went == EACH


def test_a_record_that_is_given_up_in_the_middle_leaves_no_particle_uncounted(
    ready: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamsieve.stream.beamlines.class_book.AT_ONCE", 8)
    fill(ready.directory, 1, first=3)
    ready.work.look()
    book = ready.work.book
    assert book is not None
    steps = book.update("grid/m3.mrc.h5", ready.work.records.known["grid/m3.mrc.h5"].stamp)
    assert [next(steps), next(steps)] == [8, 8]
    steps.close()
    assert (book.went, len(book.entries)) == (16, 3)
    ready.settle()
    all_once(ready, 120)
    ready.clock.now += 30
    ready.settle()
    assert ready.averaged() == 120


def test_what_is_kept_in_the_middle_of_a_record_counts_no_particle_twice_after_a_kill(
    ready: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamsieve.stream.beamlines.class_book.AT_ONCE", 8)
    fill(ready.directory, 1, first=3)
    ready.work.look()
    ready.work.step()
    assert ready.work.in_record
    ready.clock.now += 100
    ready.keeping.keep_up()
    assert len(read_classes(ready.store.path).particles) == 90
    assert read_classes(ready.store.path).facts["went"] == 0, "not written in the middle of a record"
    ready.keeping.last()
    ready.die()
    again = Session(ready.directory).begin()
    assert again.work.book is not None
    assert (again.averaged(), again.work.book.classified, again.work.book.went) == (98, 90, 8)
    again.settle()
    all_once(again, 120)
    again.clock.now += 30
    again.settle()
    assert again.averaged() == 120


def test_a_micrograph_that_was_picked_by_another_model_is_labelled_anew(ready: Session) -> None:
    images, kinds = particles(20, 77)
    write_record(ready.directory, "grid/m1.mrc", images, score=0.7)
    ready.settle()
    all_once(ready, 80)
    assert ready.work.book is not None
    assert ready.work.book.went == 30
    assert purity(ready.labels()["grid/m1.mrc.h5"], kinds) > 0.9


def test_a_record_that_is_gone_takes_its_particles_with_it(ready: Session) -> None:
    (ready.directory / "micrographs/grid/m2.mrc.h5").unlink()
    ready.settle()
    all_once(ready, 60)
    ready.clock.now += 30
    ready.settle()
    assert ready.averaged() == 60


# Restarts and kills


def test_a_restart_goes_on_with_classes_labels_averages_and_marks(ready: Session) -> None:
    number = ready.keeping.current().classes[0].id
    ready.marks.put(number, "bad", "Ana", ready.keeping.current().classes[0].since)
    ready.settle()
    before, shown = ready.labels(), ready.keeping.current()
    ready.end()
    fill(ready.directory, 1, first=3)
    again = Session(ready.directory).begin()
    again.settle()
    all_once(again, 120)
    assert again.denoiser.calls == EACH, "only the new ones"
    after = again.labels()
    assert {file: after[file].tolist() for file in before} == {file: rows.tolist() for file, rows in before.items()}
    now = again.keeping.current()
    assert {view.id for view in now.classes} == {view.id for view in shown.classes}
    marks = {view.id: view.mark for view in now.classes}
    assert marks[number] == "bad"
    assert now.rejected == next(view.count for view in now.classes if view.id == number)
    assert now.events == shown.events
    assert all(view.version > 1_000 for view in now.classes), "no version of before, which browsers may keep"


def test_a_copied_folder_is_recognised_without_looking_at_a_pixel(ready: Session) -> None:
    ready.end()
    for path in ready.directory.rglob("*.mrc.h5"):
        os.utime(path, (1, 1))
    again = Session(ready.directory).begin()
    again.settle()
    assert again.denoiser.calls == 0
    all_once(again, 90)


def test_after_a_kill_what_was_not_written_is_done_again_and_no_mark_is_lost(ready: Session) -> None:
    shown = ready.keeping.current().classes
    ready.marks.put(shown[0].id, "good", "Ana", shown[0].since)
    ready.marks.put(shown[1].id, "bad", "Ana", shown[1].since)
    ready.marks.put(shown[1].id, "", "Ana", shown[1].since)
    fill(ready.directory, 1, first=3)
    ready.work.look()
    while len(ready.labels()) < 4:
        ready.work.step()
    ready.die()
    again = Session(ready.directory).begin()
    again.settle()
    all_once(again, 120)
    marks = {view.id: view.mark for view in again.keeping.current().classes}
    assert (marks[shown[0].id], marks[shown[1].id]) == ("good", "")


def test_new_numbers_are_on_the_disk_before_anybody_sees_them(ready: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    publish = ready.keeping.publish

    def published() -> None:
        publish()
        stored = {int(number) for number in read_classes(ready.store.path).classes["id"]}
        seen.append({view.id for view in ready.keeping.current().classes} - stored)

    monkeypatch.setattr(ready.keeping, "publish", published)
    fill(ready.directory, 5, first=3)
    ready.settle()
    assert ready.facts.passes()["growth"] == 1
    assert seen
    assert not any(seen)


def test_marks_are_of_a_class_and_not_of_a_number(ready: Session) -> None:
    for view in ready.keeping.current().classes:
        ready.marks.put(view.id, "bad", "Ana", view.since)
    ready.die()
    ready.store.path.unlink()
    again = Session(ready.directory)
    again.clock.now += 50
    again.begin().settle()
    assert again.keeping.current().classes
    assert again.keeping.current().rejected == 0
    again.end()
    third = Session(ready.directory).begin()
    third.settle()
    assert third.keeping.current().particles == 90
    assert third.keeping.current().rejected == 0


@pytest.mark.parametrize("damage", ["cut", "other", "state"])
def test_a_damaged_file_of_classes_is_put_aside_and_all_is_classified_anew(ready: Session, damage: str) -> None:
    ready.end()
    path = ready.store.path
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "other":
        path.write_bytes(b"no HDF5")
    else:
        import h5py

        with h5py.File(path, "a") as file:
            del file["state/online_means"]
    again = Session(ready.directory).begin()
    again.settle()
    all_once(again, 90)
    assert path.with_name("classes.h5.unusable").exists()
    assert read_labels(ready.directory) is not None or not again.store.path.exists()


def test_two_daemons_do_not_classify_one_folder(ready: Session) -> None:
    other = Session(ready.directory)
    assert not other.store.claim()
    ready.end()
    assert other.store.claim()
    other.store.release()


def test_the_picture_of_all_averages_is_drawn_every_so_many_particles_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []

    def montage(averages: Any, counts: Any, labels: Any, **more: Any) -> bytes:
        drawn.append({"averages": averages.shape, "counts": sum(counts), "labels": labels, **more})
        return b"PNG"

    monkeypatch.setattr("beamsieve.models.classes2d.montage.montage", montage)
    session = Session(tmp_path, ClassSettings(number=6, first_at=60, per_class=20, montage_every=40), pictures=True)
    fill(tmp_path, 3)
    session.begin().settle()
    for count in (25, 10):
        write_record(tmp_path, f"more{count}.mrc", particles(count, count)[0])
        session.settle()
    assert [one["counts"] for one in drawn] == [90, 125], "not of 115"
    largest = session.keeping.current().classes[0]
    session.marks.put(largest.id, "bad", "Ana", largest.since)
    session.end()
    assert drawn[-1]["marks"].count("bad") == 1
    assert drawn[-1]["title"] == "125 particles"
    assert any(label.startswith(f"{largest.id}") for label in drawn[-1]["labels"])
    assert (tmp_path / "classes.png").read_bytes() == b"PNG"


# Marks


def test_what_is_split_off_a_bad_class_is_bad_and_a_merge_of_good_and_bad_is_neither(tmp_path: Path) -> None:
    marks, since = ClassMarks(tmp_path), {1: 10.0, 2: 10.0, 3: 10.0, 4: 20.0, 5: 20.0}
    for number, mark in ((1, "bad"), (2, "good"), (3, "good")):
        marks.put(number, mark, "Ana", since[number])
    said = marks.follow(
        [
            Change("split", 4, (1,), ""),
            Change("new", 5, (), ""),
            Change("merged", 3, (2,), ""),
            Change("gone", 9, (), ""),
        ],
        since,
    )
    assert marks.all() == {1: "bad", 2: "good", 3: "good", 4: "bad"}, "good and good is good"
    assert said == ["Class 4 is marked bad, as class 1 is."]
    (text,) = marks.follow([Change("merged", 1, (2,), "")], since)
    assert marks.of(2) == ""
    assert "bad and good" in text
    again = ClassMarks(tmp_path)
    again.restore(since, {})
    assert {n: m for n, m in again.all().items() if m} == {1: "bad", 3: "good", 4: "bad"}
    again.restore({1: 10.5}, {})
    assert again.all() == {}, "another class of that number"


def test_a_line_that_is_cut_short_or_strange_hurts_no_mark(tmp_path: Path) -> None:
    marks = ClassMarks(tmp_path)
    marks.put(1, "bad", "Ana", 5.0)
    with (tmp_path / FILE).open("a") as lines:
        lines.write('{"class": "1", "mark": "good", "since": 5.0}\n{"class": 1, "mark": "fine", "since": 5}\n{"cl')
    again = ClassMarks(tmp_path)
    again.restore({1: 5.0}, {})
    assert again.all() == {1: "bad"}


def test_particles_of_a_bad_class_are_rejected_in_the_file_until_the_mark_is_withdrawn(ready: Session) -> None:
    view = ready.keeping.current().classes[0]
    for mark, count in (("bad", view.count), ("good", 0), ("bad", view.count), ("", 0)):
        ready.marks.put(view.id, mark, "Ana", view.since)
        assert ready.keeping.current().rejected == count, "at once"
        ready.clock.now += 10
        ready.keeping.keep_up()
        stored = read_classes(ready.store.path)
        assert int(stored.particles["rejected"].sum()) == count
        rejected = stored.particles["class"][stored.particles["rejected"] == 1]
        assert set(rejected.tolist()) == ({view.id} if count else set())
        assert stored.classes["mark"][stored.classes["id"] == view.id].tolist() == [mark.encode()]


# Bad input


def test_images_that_are_none_get_no_class_and_are_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for at in range(5):
        images, _ = particles(EACH, at)
        images[3] = 7.0
        images[4, 2, 2] = np.nan
        images[5] = np.inf
        write_record(tmp_path, f"m{at}.mrc", images)
    session = Session(tmp_path).begin()
    session.settle()
    current = session.keeping.current()
    assert (current.particles, current.unlabelled) == (135, 15)
    for labels in session.labels().values():
        assert np.flatnonzero(labels == 0).tolist() == [3, 4, 5]
    assert session.facts.failures() == {"image": 15}
    assert sum("get no class" in record.message for record in caplog.records) == 1
    for view in current.classes:
        assert np.isfinite(view.average).all()
    session.end()
    again = Session(tmp_path).begin()
    again.settle()
    assert again.facts.failures() == {}, "they were told"
    assert again.denoiser.calls == 0
    images, _ = particles(EACH, 9)
    images[0] = 0.0
    write_record(tmp_path, "m9.mrc", images)
    again.settle()
    assert again.facts.failures() == {"image": 1}


def test_a_network_that_answers_no_numbers_spoils_no_average(tmp_path: Path) -> None:
    class Odd(Blur):
        def __call__(self, images: Any) -> Any:
            found = super().__call__(images)
            found[0] = np.nan
            return found

    fill(tmp_path, 3)
    session = Session(tmp_path, denoiser=Odd()).begin()
    session.settle()
    assert session.keeping.current().particles == 87
    assert all(np.isfinite(view.average).all() for view in session.keeping.current().classes)


def test_particles_without_any_contrast_make_no_classes_and_no_endless_work(tmp_path: Path) -> None:
    for at in range(3):
        write_record(tmp_path, f"m{at}.mrc", np.ones((EACH, SIZE, SIZE), np.float32))
    session = Session(tmp_path).begin()
    session.settle()
    assert session.keeping.current().state == "waiting"
    fill(tmp_path, 4)
    session.settle()
    assert session.keeping.current().particles == 120


def test_fewer_particles_than_classes(tmp_path: Path) -> None:
    images, _ = particles(12, 3)
    write_record(tmp_path, "m.mrc", images)
    session = Session(tmp_path, ClassSettings(number=200, first_at=10, per_class=2)).begin()
    session.settle()
    assert session.keeping.current().particles == 12
    assert 1 <= len(session.keeping.current().classes) <= 12


def test_the_same_box_in_other_pixels_is_classified_with_the_others_and_another_box_is_not(
    ready: Session, caplog: pytest.LogCaptureFixture
) -> None:
    images, kinds = particles(EACH, 50)
    fine = np.kron(images, np.ones((2, 2), np.float32))
    write_record(ready.directory, "fine.mrc", fine, pixel_a=PIXEL_A / 2 * 1.015)
    write_record(ready.directory, "other.mrc", images, pixel_a=PIXEL_A * 1.5)
    write_record(ready.directory, "other2.mrc", images[:3], pixel_a=PIXEL_A * 1.5)
    ready.settle()
    labels = ready.labels()
    assert purity(labels["fine.mrc.h5"], kinds) > 0.9
    assert not labels["other.mrc.h5"].any()
    assert ready.facts.failures() == {"box": 33}
    (told,) = [record.message for record in caplog.records if "get no class" in record.message]
    assert "192 Å" in told
    assert "files.directory" in told
    current = ready.keeping.current()
    assert (current.particles, current.unlabelled) == (120, 33)


def test_when_most_particles_are_in_another_box_classes_are_made_of_those(ready: Session) -> None:
    for at in range(6):
        images, _ = particles(EACH, 60 + at)
        write_record(ready.directory, f"late{at}.mrc", images, pixel_a=PIXEL_A * 1.5)
    ready.settle()
    assert ready.facts.passes()["box"] == 1
    labels = ready.labels()
    assert all(labels[f"late{at}.mrc.h5"].all() for at in range(6))
    assert not any(labels[f"grid/m{at}.mrc.h5"].any() for at in range(3))
    assert ready.keeping.current().pixel_a == pytest.approx(SIZE * PIXEL_A * 1.5 / 64)


def test_a_damaged_record_costs_only_itself(ready: Session, caplog: pytest.LogCaptureFixture) -> None:
    path = write_record(ready.directory, "cut.mrc", particles(EACH, 9)[0])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (path.parent / "no.h5").write_bytes(b"nothing")
    ready.settle()
    ready.settle()
    all_once(ready, 90)
    assert ready.facts.failures() == {"record": 2}
    assert sum("cannot be read" in record.message for record in caplog.records) == 2, "once each"
    path.write_bytes(whole)
    ready.settle()
    all_once(ready, 120)


def test_a_full_disk_is_told_and_what_was_not_written_is_written_later(
    ready: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(ready.store.path))

    with monkeypatch.context() as patched:
        patched.setattr(ready.store, "write", full)
        fill(ready.directory, 1, first=3)
        ready.settle()
        ready.keeping.publish()
        assert "No space left" in ready.keeping.current().error
        assert ready.keeping.current().state == "ready"
        assert ready.facts.failures()["file"] >= 1
        assert len(read_classes(ready.store.path).particles) == 90
    ready.clock.now += 200
    ready.settle()
    assert len(read_classes(ready.store.path).particles) == 120
    assert ready.keeping.current().error == ""


def test_a_file_of_classes_that_somebody_removed_is_written_again(ready: Session) -> None:
    ready.store.path.unlink()
    ready.clock.now += 200
    ready.keeping.keep_up()
    assert len(read_classes(ready.store.path).particles) == 90
    ready.store.path.unlink()
    ready.end()
    assert len(read_classes(ready.store.path).particles) == 90


def test_a_picture_that_could_not_be_written_is_drawn_when_there_is_room(
    ready: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]

    def picture(*_: Any) -> None:
        if failing[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "classes.png")

    monkeypatch.setattr(ready.store, "picture", picture)
    write_record(ready.directory, "many.mrc", particles(450, 9)[0])
    ready.settle()
    ready.keeping.publish()
    assert "No space left" in ready.keeping.current().error
    failing[0] = False
    ready.clock.now += 200
    ready.keeping.keep_up()
    ready.keeping.publish()
    assert ready.keeping.current().error == "", "no further particle came"


# Other networks


def test_another_network_takes_over_when_all_particles_were_gone_over_with_it(ready: Session) -> None:
    other = Blur(3.0, "tuned")
    ready.loads["model-1.pt"] = other
    ready.networks.wanted = ready.load("model-1.pt")
    ready.settle()
    assert ready.facts.passes()["model"] == 1
    assert ready.networks.current.denoiser is other
    all_once(ready, 90)
    current = ready.keeping.current()
    assert (current.model, current.tuned) == ("tuned", True)
    ready.end()
    stored = read_classes(ready.store.path)
    assert [model.name for model in stored.models] == ["blur", "tuned"]
    assert set(stored.particles["model"].tolist()) == {1}
    path = str(Path("model-1.pt").absolute())
    again = Session(ready.directory, loads={path: other}).begin()
    again.settle()
    assert again.networks.tuned, "a restart goes on with it"
    gone = Session(ready.directory)
    again.end()
    gone.begin().settle()
    assert gone.networks.current.denoiser.name == "blur", "or with the configured one, where it is not there any more"
    assert any("not there any more" in text for _, text in gone.keeping.current().events)
    assert {int(m) for e in gone.work.book.entries.values() for m in e.rows["model"]} == {0}  # type: ignore[union-attr]
    gone.end()


def test_another_configured_network_goes_over_all_particles_also_after_a_kill_in_the_middle(ready: Session) -> None:
    ready.end()
    other = Session(ready.directory, denoiser=Blur(3.0, "other")).begin()
    other.work.step()
    assert other.work.going_over is not None
    assert other.work.going_over.why == "model"
    other.keeping.save()
    other.die()
    again = Session(ready.directory, denoiser=Blur(3.0, "other")).begin()
    again.settle()
    all_once(again, 90)
    assert again.facts.passes()["model"] == 1
    assert not again.networks.tuned


# The thread


def live(session: Session) -> LiveClasses:
    return LiveClasses(session.work, session.keeping)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_thread_classifies_what_it_is_told_and_all_that_is_left_at_the_end(tmp_path: Path) -> None:
    session = Session(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    classes = live(session)
    classes.open()
    fill(tmp_path, 3)
    for at in range(3):
        classes.tell(f"grid/m{at}.mrc", EACH)
    until(lambda: classes.current().state == "ready")
    view = classes.current().classes[0]
    classes.mark(view.id, "bad", "Ana")
    assert classes.current().rejected == view.count
    with pytest.raises(Refused, match="no class 99"):
        classes.mark(99, "bad", "Ana")
    fill(tmp_path, 1, first=3)
    classes.finish(DRAINED_S)
    assert classes.close()
    stored = read_classes(session.store.path)
    assert len(stored.particles) == 120
    assert (stored.particles["class"] > 0).all()
    assert stored.particles["rejected"].any()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("class")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have a priority of their own on Linux")
def test_the_thread_and_those_of_the_denoiser_give_way_to_the_others(tmp_path: Path) -> None:
    found = {}

    class Looks(Blur):
        def __call__(self, images: Any) -> Any:
            found["here"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            started = threading.Thread(
                target=lambda: found.update(below=os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            )
            started.start()
            started.join()
            return super().__call__(images)

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    fill(tmp_path, 2)
    session = Session(tmp_path, denoiser=Looks())
    classes = live(session)
    classes.open()
    classes.finish(DRAINED_S)
    classes.close()
    assert found == {"here": 10, "below": 10}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_particles_wait_from_the_moment_they_are_told_of(tmp_path: Path) -> None:
    session = Session(tmp_path)
    classes = live(session)
    fill(tmp_path, 3)
    classes.tell("grid/m0.mrc", EACH)
    classes.tell("grid/m1.mrc", 0)
    assert session.facts.waiting() == EACH, "though nobody has looked"
    classes.open()
    until(lambda: session.facts.waiting() == 0)
    assert classes.current().particles == 90
    classes.close()
    assert session.facts.waiting() == 0


def test_what_was_told_of_and_could_not_be_written_waits_no_longer(ready: Session) -> None:
    ready.facts.told(EACH)
    assert ready.facts.waiting() == EACH
    ready.work.hear("grid/m9.mrc", EACH, ready.clock.now)
    ready.clock.now += 1.5
    ready.keeping.keep_up()
    assert ready.facts.waiting() == 0


def test_a_bug_costs_the_classes_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Blur):
        def __call__(self, images: Any) -> Any:
            raise ZeroDivisionError("of a denoiser")

    fill(tmp_path, 3)
    session = Session(tmp_path, denoiser=Broken())
    classes = live(session)
    classes.open()
    until(lambda: classes.current().state == "failed")
    assert "of a denoiser" in classes.current().error
    classes.tell("grid/m0.mrc", 3)
    assert classes.close()
    assert session.facts.failures() == {"bug": 1}
    again = Session(tmp_path).begin()
    again.settle()
    all_once(again, 90)


def test_a_second_daemon_says_why_it_waits_and_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsieve.stream.beamlines.class_worker.LOOK_S", 0.02)
    fill(tmp_path, 3)
    first, second = Session(tmp_path).begin(), Session(tmp_path)
    classes = live(second)
    classes.open()
    until(lambda: "another daemon" in classes.current().error)
    first.end()
    until(lambda: classes.current().state == "ready")
    assert classes.current().error == ""
    classes.close()


def test_the_watch_tells_names_and_how_it_ended() -> None:
    told: list[Any] = []

    class Hears:
        def tell(self, name: str, count: int) -> None:
            told.append((name, count))

        def finish(self, seconds: float) -> None:
            told.append(seconds)

    def result(weight: float, **found: Any) -> Result:
        frame = Frame(key=Key("r", 1), data=np.zeros((2, 2)), arrived=0.0, wall=0.0)
        return Result(frame, Outcome.ACCEPTED, 1.0, "picker", weight, found)

    micrograph = picked("a.mrc", 3)
    for reason, seconds in (("end", DRAINED_S), ("idle", DRAINED_S), ("stopped", STOPPED_S), ("aborted", STOPPED_S)):
        told.clear()
        watch = ClassWatch(Hears())
        watch.write([result(1.0, micrograph=micrograph), result(0.0, micrograph=micrograph), result(1.0)])
        watch.end(RunEnd("r", reason))
        watch.close()
        assert told == [("a.mrc", 3), seconds]
    told.clear()
    watch = ClassWatch(Hears())
    watch.end(RunEnd("r", "end"))
    watch.start(RunStart("r"))
    watch.close()
    assert told == [STOPPED_S], "an abort is a stop"
