"""Refresh learning: the move by hand, the steps of a task by a second implementation, and rows that stay."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods import generator, trainable
from methods.regularisation.refresh import Refresh, RefreshSettings, unlearning, weighted_fisher
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy
from tests.methods.reference import Adam, assert_near, batches_of, mean_loss


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
    refresh.before_step(model, [batch.replace(loss_denominator=4) for batch in toy.batches(size)])
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


def unlearn(parameters: dict[str, Tensor], gradients: list[Tensor], step: int, delta: float) -> None:
    """Written anew, without a Fisher: theta += delta (g |theta| / |g| + 0.001 noise), units without a gradient left alone."""
    for (name, p), g in zip(parameters.items(), gradients, strict=True):
        if p.ndim == 1:
            p.data += delta * g * p.data.norm() / (g.norm() + 1e-20)
            continue
        live = [k for k in range(len(p)) if g[k].any()]
        length = p.data[live].norm() / g.norm()
        # the draws of the seed, as all workers make them
        rng = torch.Generator().manual_seed(generator(7, "refresh", 0, step, name).initial_seed())
        noise = torch.randn(p[live].shape, generator=rng, dtype=p.dtype)
        p.data[live] += delta * (length * g[live] + 0.001 * noise)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_task_equals_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    """Each batch is unlearnt, then learnt from there; the other order ends elsewhere."""
    delta, lr = 0.03, 1e-2
    learner = learner_of(
        model=model,
        methods=[{"tuning": "full", "plugins": [{"name": "refresh", "delta": delta, "samples": 0}]}],
        training={"lr": lr, "micro_batch": 4, "weight_decay": 0.0},
    )
    module = learner.family.module.double()
    ends = {}
    for unlearns_first in (True, False):
        other = copy.deepcopy(module).train()
        parameters = dict(trainable(other))
        adam = Adam(parameters.values(), lr, decay=0.0)
        for number, step in enumerate(batches_of(learner, 0), start=1):
            for is_unlearning in (unlearns_first, not unlearns_first):
                gradients = list(torch.autograd.grad(mean_loss(other, step), list(parameters.values())))
                if is_unlearning:
                    unlearn(parameters, gradients, number, delta)
                else:
                    adam.step(gradients)
        ends[unlearns_first] = parameters
    train_task(learner, 0, lambda event: None)
    apart = 0.0
    for name, p in trainable(module).items():
        # softmax cancels it: its gradient is rounding, which both moves blow up without effect
        if not name.endswith("key.bias"):
            # a Llama norms in float32, whatever its weights
            assert_near(p, ends[True][name], name, tolerance=1e-5)
            apart = max(apart, float((p - ends[False][name]).detach().norm() / p.detach().norm()))
    assert apart > 1e-3


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
