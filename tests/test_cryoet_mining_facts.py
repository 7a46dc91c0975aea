"""What is counted of tomograms: classes with bounded labels, the drift of the error, files that wait."""

from __future__ import annotations

import math

import pytest
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import MOST_CLASSES, OTHER, UNMARKED, Mined, MinedTomogram
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families


def tomogram(error: float, network: str = "a") -> MinedTomogram:
    return MinedTomogram({"": 7}, error, {"pick": 2.0, "encode": 4.0}, network)


def values(metrics: Metrics, family: str) -> dict[tuple[str, ...], float]:
    text = generate_latest(metrics.registry()).decode()
    return {
        tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value
        for one in text_string_to_metric_families(text)
        for sample in one.samples
        if sample.name == family
    }


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("cryoet_mining")
    made.mined = Mined()
    return made


def test_subvolumes_are_counted_by_class_and_names_stay_few(metrics: Metrics) -> None:
    assert metrics.mined is not None
    for number in range(MOST_CLASSES + 5):
        metrics.mined.add(MinedTomogram({"": 7, f"class{number}": 2}, 0.5, {"pick": 2.0, "encode": 4.0}, "a"))
    found = values(metrics, "beamsieve_tomogram_subvolumes_total")
    assert len(found) == MOST_CLASSES + 2
    assert found[(OTHER,)] == 5 * 2
    assert found[("class0",)] == 2
    assert found[(UNMARKED,)] == 7 * (MOST_CLASSES + 5)
    metrics.mined.clusters({"": 4, "class0": 3, "one too many": 1, "another": 1})
    assert values(metrics, "beamsieve_tomogram_clusters") == {(UNMARKED,): 4, ("class0",): 3, (OTHER,): 2}
    count = values(metrics, "beamsieve_tomogram_stage_seconds_count")
    assert count == {("pick",): MOST_CLASSES + 5, ("encode",): MOST_CLASSES + 5}


def test_the_drift_is_against_the_session_of_the_same_network(metrics: Metrics) -> None:
    assert metrics.mined is not None
    assert math.isnan(metrics.mined.drift().ratio)
    metrics.mined.errors([0.4, 0.5, math.nan], "a")
    metrics.mined.add(tomogram(0.5))
    metrics.mined.add(tomogram(math.nan))
    metrics.mined.add(tomogram(1.0))
    drift = metrics.mined.drift()
    assert (drift.last, drift.median, drift.ratio) == (1.0, 0.5, 2.0), "of 0.4, 0.5, 0.5 and 1.0"
    assert values(metrics, "beamsieve_tomogram_reconstruction_error_ratio") == {(): 2.0}
    metrics.mined.add(tomogram(0.2, "b"))
    assert metrics.mined.drift().ratio == 1.0, "errors of another network are not compared"


def test_mode_model_trainings_and_voxels_have_their_metrics(metrics: Metrics) -> None:
    assert metrics.mined is not None
    assert values(metrics, "beamsieve_tomogram_voxels_fraction") == {}
    metrics.mined.mode("annotate")
    metrics.mined.model("net", "ab" * 32, trained=True)
    metrics.mined.training("codes", "worse")
    metrics.mined.add(MinedTomogram({}, math.nan, {}, "a", {"membrane": 0.25, "globule": 0.05}))
    metrics.waiting({"growing": 2}, 12.5)
    assert values(metrics, "beamsieve_tomogram_mode") == {("explore",): 0, ("annotate",): 1}
    assert values(metrics, "beamsieve_tomogram_model_info") == {("net", "ab" * 32, "true"): 1}
    trainings = values(metrics, "beamsieve_tomogram_trainings_total")
    assert trainings[("worse", "codes")] == 1
    assert trainings[("done", "voxels")] == 0, "a rate needs the zero before the first"
    assert values(metrics, "beamsieve_tomogram_voxels_fraction") == {("membrane",): 0.25, ("globule",): 0.05}
    assert values(metrics, "beamsieve_waiting_files") == {("growing",): 2}
    assert values(metrics, "beamsieve_waiting_oldest_seconds") == {(): 12.5}
