"""CoSO: the sketch and the basis on small matrices, and two tasks of it against a second implementation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods.subspaces.coso import Coso, extended, frequent_directions, left_directions, reserved, rounding
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import assert_near, batches_of, mean_loss


def test_directions_have_a_fixed_sign() -> None:
    u, sigma = left_directions(torch.tensor([[0.0, -3.0], [2.0, 0.0], [0.0, 0.0]]), 2)
    torch.testing.assert_close(u, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(sigma, torch.tensor([3.0, 2.0]))


def test_the_sketch_by_hand() -> None:
    first = frequent_directions(None, torch.eye(3), torch.tensor([5.0, 4.0, 3.0]), 2)
    assert first.tolist() == [[5.0, 0.0], [0.0, 4.0], [0.0, 0.0]]
    # columns (5, 0, 0), (0, 4, 0), (0, 0, 3): squares 25, 16, 9; the third is taken off: 16, 7, 0
    second = frequent_directions(first, torch.eye(3)[:, 2:], torch.tensor([3.0]), 2)
    torch.testing.assert_close(second @ second.T, torch.diag(torch.tensor([16.0, 7.0, 0.0])))
    wide = frequent_directions(first, torch.eye(3)[:, 2:], torch.tensor([3.0]), 5)
    torch.testing.assert_close(wide @ wide.T, torch.diag(torch.tensor([25.0, 16.0, 9.0])))


def test_what_a_task_reserves_by_hand() -> None:
    sketch = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # shares of energy 9/14, 13/14, 1
    assert reserved(sketch, 0.5).shape[1] == 0
    assert reserved(sketch, 0.9).shape[1] == 1
    torch.testing.assert_close(reserved(sketch, 0.98).abs(), torch.eye(3)[:, :2])
    basis = extended(torch.zeros(3, 0), torch.eye(3)[:, :1], 3)
    more = extended(basis, torch.tensor([[3.0], [4.0], [0.0]]), 3)
    torch.testing.assert_close(more @ more.T, torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    assert extended(basis, torch.eye(3)[:, 1:], 2).shape[1] == 2


def test_directions_that_are_rounding_alone_are_neither_trained_nor_reserved() -> None:
    full = torch.eye(4, dtype=torch.float64)
    gradient = torch.arange(12.0, dtype=torch.float64).reshape(4, 3).sin()
    left = gradient - full @ (full.T @ gradient) + 1e-16 * gradient.cos()
    u, sigma = left_directions(left, 3, rounding(gradient))
    assert u.count_nonzero() == 0
    assert sigma.count_nonzero() == 0
    # two directions of one gradient in three: the third is not drawn
    u, sigma = left_directions(gradient[:, :2] @ torch.ones(2, 3, dtype=torch.float64), 3, rounding(gradient))
    assert u.count_nonzero(0).tolist() == [4, 0, 0]
    assert reserved(torch.zeros(4, 3), 0.98).shape == (4, 0)
    assert reserved(torch.diag(torch.tensor([1.0, 1e-9, 0.0])), 1.0).shape == (3, 0)
    assert reserved(torch.diag(torch.tensor([1.0, 0.5, 0.0])), 1.0).shape == (3, 1)


NAMES = {"tiny-t5": "o.weight", "tiny-bert": "attention.output.dense.weight", "tiny-llama": "o_proj.weight"}


@pytest.mark.parametrize("model", FAMILIES)
def test_two_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    """The released optimizer in its own words: Adam on the projected gradient, its state kept when P changes."""
    coso = {"name": "coso", "rank": 3, "sketch": 6, "every": 2, "threshold": 0.9999}
    learner = learner_of(model=model, methods=[{"tuning": coso}], stream={"max_train": 40}, training={"micro_batch": 2})
    module = learner.family.module.double()
    for layer in learner.stack.tuning.layers.values():
        layer.basis = layer.basis.double()
    plain = copy.deepcopy(module).train()
    weights = {n: p for n, p in plain.named_parameters() if n.endswith("." + NAMES[model])}
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    assert [n.removesuffix(".weight") for n in weights] == list(learner.stack.tuning.layers)
    complement = {n: torch.eye(len(w), dtype=torch.float64) for n, w in weights.items()}
    for task in (0, 1):
        moments: dict[str, list[Tensor]] = {}
        covariance: dict[str, Tensor] = {}
        projector: dict[str, Tensor] = {}
        for step, batch in enumerate(batches_of(learner, task)):
            found = torch.autograd.grad(mean_loss(plain, batch), [*weights.values(), *heads])
            gradients = dict(zip([*weights, *range(len(heads))], found, strict=True))
            for name in weights:
                g = complement[name] @ gradients[name]
                if step % 2 == 0:
                    values, vectors = torch.linalg.eigh(g @ g.T)  # squares of singular values, ascending
                    u = vectors.flip(1)[:, :6]
                    for column in u.T:
                        column *= column[column.abs().argmax()].sign()
                    projector[name] = u[:, :3]
                    new = (u * values.flip(0)[:6].clamp(min=0)) @ u.T
                    if name not in covariance:
                        covariance[name] = new
                    else:
                        values, vectors = torch.linalg.eigh(covariance[name] + new)
                        shrunk = (values - values[-7]).clamp(min=0)
                        covariance[name] = (vectors * shrunk) @ vectors.T
                gradients[name] = projector[name].T @ g
            norm = sum((g**2).sum() for g in gradients.values()).sqrt()
            for name, g in gradients.items():
                g = g * min(1.0, 1.0 / (norm.item() + 1e-6))
                m, v = moments.setdefault(name, [torch.zeros_like(g), torch.zeros_like(g)])
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                move = (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                with torch.no_grad():
                    if name in weights:
                        weights[name] -= 1e-3 * projector[name] @ move
                    else:
                        heads[name] -= 1e-3 * move
        for name, c in covariance.items():
            values, vectors = torch.linalg.eigh(c)
            share = values.flip(0).cumsum(0) / values.sum()
            kept = vectors.flip(1)[:, : int((share < 0.9999).sum())]
            complement[name] = complement[name] - kept @ kept.T
        before = {n: module.get_parameter(n).detach().clone() for n in weights}
        train_task(learner, task, lambda event: None)
        for name, w in weights.items():
            assert not torch.equal(module.get_parameter(name), before[name])
            assert_near(module.get_parameter(name), w, name)
            basis = learner.stack.state_dict()["0:coso"]["bases"][name.removesuffix(".weight")]
            assert basis.shape[1] > task
            assert_near(basis @ basis.T, torch.eye(len(w), dtype=torch.float64) - complement[name], f"basis of {name}")
    for name, p in zip(["weight", "bias"], heads, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)
    assert "coso_moves" not in dict(module.named_modules())


def test_the_second_task_moves_nothing_in_the_first_ones_directions(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "coso", "rank": 4}}], training={"lr": 1e-2})
    tuning = learner.stack.tuning
    train_task(learner, 0, lambda event: None)
    assert isinstance(tuning, Coso)
    for layer in tuning.layers.values():
        assert 0 < layer.basis.shape[1] < 32
    bases = [layer.basis for layer in tuning.layers.values()]
    before = [layer.weight.detach().clone() for layer in tuning.layers.values()]
    train_task(learner, 1, lambda event: None)
    for basis, old, layer in zip(bases, before, tuning.layers.values(), strict=True):
        change = layer.weight.detach() - old
        assert change.norm() > 1e-3
        assert (basis.T @ change).norm() < 1e-4 * change.norm()
