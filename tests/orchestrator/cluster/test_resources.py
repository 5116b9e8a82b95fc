"""What fits on a cluster, and where scores are computed."""

from __future__ import annotations

import pytest

from orchestrator.cluster.resources import (
    Resources,
    cluster,
    gpus_per_worker,
    max_concurrent_groups,
    scores_asynchronously,
)
from orchestrator.config.running import ScalingConfig
from orchestrator.errors import UserError


def test_a_worker_takes_a_gpu_where_there_are_gpus() -> None:
    assert gpus_per_worker(ScalingConfig(), Resources(8, 0)) == 0
    assert gpus_per_worker(ScalingConfig(), Resources(8, 2)) == 1
    assert gpus_per_worker(ScalingConfig(gpus_per_worker=0.25), Resources(8, 2)) == 0.25


def test_the_scarcer_resource_says_how_many_groups_fit() -> None:
    assert max_concurrent_groups(ScalingConfig(workers=2), Resources(9, 0)) == 4
    assert max_concurrent_groups(ScalingConfig(workers=2), Resources(9, 3)) == 1
    # 0.3 / 0.1 is a little less than 3 in floating point
    assert max_concurrent_groups(ScalingConfig(gpus_per_worker=0.1), Resources(90, 0.3)) == 3
    # nodes may be still to come
    assert max_concurrent_groups(ScalingConfig(workers=2, max_concurrent=8), Resources(1, 0)) == 8
    # what can grow has room to grow, and needs none
    assert [max_concurrent_groups(ScalingConfig(workers=(2, 4)), Resources(cpus, 0)) for cpus in (2, 7, 8)] == [1, 1, 2]
    with pytest.raises(UserError, match=r"asks for 2 x \(1 CPU, 0 GPU\), but the cluster has 1 CPUs"):
        max_concurrent_groups(ScalingConfig(workers=(2, 4)), Resources(1, 0))
    with pytest.raises(UserError, match=r"scaling.workers: asks for 3 x \(1 CPU, 0 GPU\), but the cluster has 2 CPUs"):
        max_concurrent_groups(ScalingConfig(workers=3), Resources(2, 0))


@pytest.mark.parametrize(
    ("placement", "cpus", "gpus", "sequences", "expected"),
    [
        ("async", 1, 0, 1, True),
        ("inline", 64, 0, 1, False),
        ("auto", 2, 0, 1, True),
        # both CPUs train
        ("auto", 2, 0, 2, False),
        # a CPU is free, but no GPU
        ("auto", 8, 1, 1, False),
        ("auto", 8, 2, 1, True),
    ],
)
def test_scores_are_computed_beside_training_where_something_is_free(
    placement: str, cpus: int, gpus: int, sequences: int, expected: bool
) -> None:
    assert scores_asynchronously(placement, ScalingConfig(), Resources(cpus, gpus), sequences) == expected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "nowhere.invalid:6379", "nonsense"])
def test_a_cluster_that_does_not_answer_is_told_in_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError) as caught, cluster():
        pass
    assert str(caught.value).startswith(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: ")
    assert "\n" not in str(caught.value)
