"""Passes over examples: each alone, capped over all workers, the same for any number of workers and any micro-batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import TokenStream
from methods.shared.answer_logits import answer_logits
from methods.shared.example_gradients import mean_over_examples
from methods.shared.passes import evaluating, first
from methods.shared.snapshots import fitted, squared_distance
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import TaskBatches
from tests.conftest import FAMILIES
from tests.methods import toy


def test_the_cap_is_over_all_workers_and_cuts_a_micro_batch() -> None:
    alone = [x for batch in first(toy.batches(2), 3) for x in batch.example_indices]
    shared = [[x for batch in first(toy.batches(2, rank, 2), 3) for x in batch.example_indices] for rank in (0, 1)]
    assert alone == [0, 1, 2]
    assert shared == [[0, 1], [2]]
    assert [len(b.labels) for b in first(toy.batches(2), 3)] == [2, 1]
    assert [b.example_indices for b in first(toy.batches(3), None)] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_mean_is_over_examples_whatever_the_micro_batch(size: int) -> None:
    model = toy.Toy(toy.WEIGHT)
    found = mean_over_examples(
        toy.context(), model, toy.batches(size), None, lambda e: toy.forward(model, e)[0], lambda g, loss: g**2
    )
    by_hand = sum(g**2 for g in toy.gradients(toy.WEIGHT)) / 4
    toy.assert_close(found["weight"], by_hand)


def test_workers_average_to_the_same() -> None:
    """The two workers' sums and counts, averaged as all_reduce would, give the mean over all three examples."""
    model = toy.Toy(toy.WEIGHT)
    sums: list[list[Tensor]] = []
    for rank in (0, 1):
        seen: list[Tensor] = []

        def note(tensor: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(tensor.clone())
            return tensor

        mean_over_examples(
            toy.context(mean_over_workers=note),
            model,
            toy.batches(2, rank, 2),
            3,
            lambda e: toy.forward(model, e)[0],
            lambda g, loss: g**2,
        )
        sums.append(seen)
    count, total = ((a + b) / 2 for a, b in zip(*sums, strict=True))
    assert count == 1.5
    toy.assert_close(total / count, sum(g**2 for g in toy.gradients(toy.WEIGHT)[:3]) / 3)


def test_answer_logits_of_each_kind_of_model() -> None:
    logits = torch.arange(24.0).view(2, 4, 3)
    decoder = toy.batch(labels=torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]]))
    # the logits at tokens 1 and 2 of the first example ask for its labels at 2 and 3
    assert torch.equal(answer_logits(decoder, logits), torch.stack([logits[0, 1], logits[0, 2], logits[1, 0]]))
    read = TokenStream(torch.zeros(2, 4), torch.ones(2, 4))
    both = toy.batch(labels=torch.tensor([[5, 6, -100, -100], [7, -100, -100, -100]]), source=read, target=read)
    assert torch.equal(answer_logits(both, logits), torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]]))
    classifier = toy.batch(labels=torch.tensor([0, 1]))
    assert torch.equal(answer_logits(classifier, logits[:, 0]), logits[:, 0])


@pytest.mark.parametrize("model", FAMILIES)
def test_answer_logits_give_back_the_loss(model: str, learner_of: Callable[..., Learner]) -> None:
    """Cross-entropy of those rows against the labels is the training loss: they are the right rows in the right order."""
    learner = learner_of(model=model)
    learner.family.at_task(0, 3)
    batch = next(iter(TaskBatches(learner, learner.features(0), 0)))
    loss, logits = learner.forward(learner.family.module, batch)
    labels = batch.labels.flatten()
    rows = answer_logits(batch, logits)
    assert len(rows) == (labels != -100).sum()
    again = nn.functional.cross_entropy(rows, labels[labels != -100], reduction="sum")
    torch.testing.assert_close(again, loss)


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


def test_a_head_of_another_length_fits() -> None:
    saved = {"head": torch.tensor([[1.0], [2.0]]), "gone": torch.ones(1)}
    longer = fitted(saved, {"head": torch.ones(3, 1)})
    assert list(longer) == ["head"]
    assert longer["head"].tolist() == [[1.0], [2.0], [0.0]]
    assert fitted(saved, {"head": torch.ones(1, 1)})["head"].tolist() == [[1.0]]


def test_squared_distance_by_hand() -> None:
    parameters = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "free": torch.tensor([9.0])}
    anchor = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[1.0]])}
    assert squared_distance(parameters, anchor) == 1 + 4 + 4
    importance = {"a": torch.tensor([10.0, 0.5]), "b": torch.tensor([[0.25]])}
    assert squared_distance(parameters, anchor, importance) == 10 + 2 + 1


def test_evaluating_restores_the_mode() -> None:
    model = nn.Dropout()
    with evaluating(model):
        assert not model.training
    assert model.training
    model.eval()
    with evaluating(model):
        pass
    assert not model.training
