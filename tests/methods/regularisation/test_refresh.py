"""Refresh learning: the move by hand, the same for any micro-batch, and rows that stay."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from methods import generator, trainable
from methods.regularisation.refresh import Refresh, RefreshSettings, unlearning, weighted_fisher
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.methods import toy


def test_the_move_by_hand() -> None:
    weight, gradient = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.6], [0.8, 0.0]])
    noise, fisher = torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.tensor([[0.0, 1000.0], [3000.0, 0.0]])
    expected = torch.tensor([[0.001, (3.0 - 0.001) / 2], [(4.0 + 0.002) / 4, 0.0]])
    torch.testing.assert_close(unlearning(weight, gradient, noise, fisher), expected)
    assert torch.equal(
        unlearning(weight, 1e-9 * gradient, 0 * noise, 0.0), unlearning(weight, gradient, 0 * noise, 0.0)
    )
    assert not unlearning(weight, 0 * gradient, 0 * noise, 0.0).any(), "no gradient, no move"


def test_the_fisher_weighs_each_example_by_its_probability() -> None:
    model = toy.Toy(toy.WEIGHT)
    expected = torch.zeros(3, 2).double()
    for g, x, y in zip(toy.gradients(toy.WEIGHT), toy.INPUTS, toy.LABELS, strict=True):
        scores = toy.WEIGHT.double() @ x
        expected += math.exp(scores[y]) / scores.exp().sum() * g**2 / 4
    toy.assert_close(weighted_fisher(toy.context(), model, toy.batches(2), None)["weight"], expected)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_step_moves_uphill_on_the_whole_batch(size: int) -> None:
    delta = 0.01
    refresh = Refresh(RefreshSettings(delta=delta, samples=None), toy.context(seed=5))
    model = toy.Toy(toy.WEIGHT)
    refresh.before_task(model, 0, [])
    for batch in toy.batches(size):
        refresh.on_batch(batch.replace(loss_denominator=4))
    refresh.after_optimizer_step(model)
    g = sum(toy.gradients(toy.WEIGHT))
    assert isinstance(g, torch.Tensor)
    noise = torch.randn(3, 2, generator=generator(5, "refresh", 0, 1, "weight"), dtype=torch.float64)
    expected = toy.WEIGHT + delta * (g * toy.WEIGHT.norm() / g.norm() + 0.001 * noise)
    toy.assert_close(model.weight.detach(), expected)

    refresh.after_task(model, 0, toy.batches(2))
    fisher = weighted_fisher(toy.context(), model, toy.batches(2), None)["weight"]
    assert torch.equal(refresh.state_dict()["weight"], fisher)
    refresh.after_task(model, 1, toy.batches(2))
    toy.assert_close(refresh.state_dict()["weight"], (1 + 1e-5) * fisher)


def test_words_and_labels_that_the_batch_has_not_stay(learner_of: Callable[..., Learner]) -> None:
    plugin = {"name": "refresh", "delta": 0.01}
    learner = learner_of(
        model="tiny-bert",
        methods=[{"tuning": "full", "plugins": [plugin]}],
        training={"lr": 1e-9, "weight_decay": 0.0},
        stream={"max_train": 8},
    )
    module = learner.family.module
    before = {n: p.detach().clone() for n, p in trainable(module).items()}
    train_task(learner, 0, lambda event: None)
    after = trainable(module)
    seen = len(learner.stream.labels_until(1))
    head = (after["classifier.weight"] - before["classifier.weight"]).abs().amax(1)
    assert (head[:seen] > 1e-4).all()
    assert not head[seen:].any()
    words = "bert.embeddings.word_embeddings.weight"
    moved = (after[words] - before[words]).abs().amax(1) > 1e-6
    used = {i for f in learner.features(0) for i in f["source"]}
    assert {int(i) for i in moved.nonzero()} <= used
    assert moved.sum() > 10
    layer = "bert.encoder.layer.0.attention.self.query.weight"
    size = (after[layer] - before[layer]).norm() / before[layer].norm()
    assert size.item() == pytest.approx(0.01, rel=0.05), "delta is the share of the weight's length"


def test_without_samples_there_is_no_fisher_and_no_state() -> None:
    refresh = Refresh(RefreshSettings(samples=0), toy.context())
    refresh.after_task(toy.Toy(toy.WEIGHT), 0, toy.batches())
    assert refresh.state_dict() == {}
