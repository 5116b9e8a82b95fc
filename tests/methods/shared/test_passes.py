"""Passes over examples: capped over all workers, the same for any number of workers and any micro-batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from methods.shared.passes import evaluating, first
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import TaskBatches
from tests.methods import toy


def test_the_cap_is_over_all_workers_and_cuts_a_micro_batch() -> None:
    alone = [x for batch in first(toy.batches(2), 3) for x in batch.example_indices]
    shared = [[x for batch in first(toy.batches(2, rank, 2), 3) for x in batch.example_indices] for rank in (0, 1)]
    assert alone == [0, 1, 2]
    assert shared == [[0, 1], [2]]
    assert [len(b.labels) for b in first(toy.batches(2), 3)] == [2, 1]
    assert [b.example_indices for b in first(toy.batches(3), None)] == [[0, 1, 2], [3]]


def test_batches_of_a_task_are_a_partition_for_any_number_of_workers(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(training={"micro_batch": 2, "global_batch": 8}, stream={"max_train": 24})
    features = learner.features(0)

    def seen(workers: int) -> dict[int, list[int]]:
        found = {}
        for rank in range(workers):
            learner.parallel = Parallel(rank, workers)
            for batch in TaskBatches(learner, features, 0):
                found |= dict(zip(batch.example_indices, batch.source.ids.tolist(), strict=True))
        return found

    one, two = seen(1), seen(2)
    assert sorted(one) == list(range(24))
    assert one == two
    learner.parallel = Parallel()
    in_order = [f["source"] for f in features]
    assert [ids[: len(s)] for ids, s in zip(one.values(), in_order, strict=True)] != in_order, "not in random order"


def test_evaluating_restores_the_mode() -> None:
    model = nn.Dropout()
    with evaluating(model):
        assert not model.training
    assert model.training
    model.eval()
    with evaluating(model):
        pass
    assert not model.training
