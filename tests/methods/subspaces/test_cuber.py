"""CUBER: which old tasks may be moved, what a step keeps and pulls back, and its two ends, GPM and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from methods.masking.output_units import block_linears
from methods.subspaces.cuber import Cuber, may_update, union
from orchestrator.contract.subject import exact_arithmetic
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches, train_task

FEW = {"stream": {"first": 3, "max_train": 16}, "training": {"micro_batch": 4}, "overrides": {"dropout_rate": 0.0}}


def learner_with(learner_of: Callable[..., Learner], *plugins: dict[str, Any], tasks: int) -> Learner:
    """A learner with these plug-ins, after so many tasks."""
    learner = learner_of(methods=[{"name": "one", "tuning": "full", "plugins": list(plugins)}], **FEW)
    for task in range(tasks):
        train_task(learner, task, lambda event: None)
    return learner


def cuber_of(learner: Learner) -> Cuber:
    method = learner.stack.parts[1][1]
    assert isinstance(method, Cuber)
    return method


@pytest.mark.parametrize(
    ("old", "sufficient", "correlated", "expected"),
    [
        # G = (3, 4): 0.6 of it lies along the first axis
        ([1.0, 0.0], 0.59, 0.59, True),
        ([1.0, 0.0], 0.61, 0.59, False),
        ([1.0, 0.0], 0.59, 0.61, False),
        ([-1.0, 0.0], 0.59, 0.0, False),
        ([-1.0, 0.0], 0.59, -0.61, True),
        ([0.0, 0.0], 0.59, -1.0, False),
    ],
)
def test_a_task_is_moved_where_it_is_seen_and_agrees(
    old: list[float], sufficient: float, correlated: float, expected: bool
) -> None:
    gradient = torch.tensor([[3.0, 4.0]])
    basis = torch.tensor([[1.0], [0.0]])
    assert may_update(gradient, basis, torch.tensor([old]), sufficient, correlated) is expected
    assert not may_update(torch.zeros(1, 2), basis, torch.tensor([old]), sufficient, correlated)


def test_a_union_holds_each_direction_once() -> None:
    axes = torch.eye(4, dtype=torch.float64)
    half = 0.5**0.5
    slanted = torch.tensor([[half, half, 0.0, 0.0]], dtype=torch.float64).T
    both = union([axes[:, :2], torch.cat([slanted, axes[:, 3:]], dim=1)], torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(both @ both.T, torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)))


def gradients_of(learner: Learner, task: int) -> dict[str, torch.Tensor]:
    """The layers' gradients of the loss summed over a task's texts, each read alone."""
    model = learner.family.module.eval()
    layers = block_linears(model)
    model.zero_grad()
    for feature in learner.features(task):
        learner.family.forward(model, learner.family.collate([feature]))[0].backward()
    found = {}
    for name, layer in layers.items():
        assert layer.weight.grad is not None
        found[name] = layer.weight.grad.clone()
    model.zero_grad()
    return found


def test_a_step_by_the_formula(learner_of: Callable[..., Learner]) -> None:
    """In the third task, by bases and gradients of two old ones; both kinds of old tasks occur."""
    settings = {"epsilon": 0.8, "sufficient": 0.6, "correlated": 0.0, "strength": 3.0, "samples": None}
    learner = learner_with(learner_of, {"name": "cuber", **settings}, tasks=1)
    first = gradients_of(learner, 0)
    train_task(learner, 1, lambda event: None)
    ended = [first, gradients_of(learner, 1)]
    cuber = cuber_of(learner)
    model = learner.family.module
    # reads the third task as its training would
    learner.family.at_task(0, len(learner.stream.labels_until(3)))
    cuber.before_task(model, 2, TaskBatches(learner, learner.training_set(2), 2))
    new = gradients_of(learner, 2)
    rng = torch.Generator().manual_seed(0)
    expected, kinds = {}, set()
    for name, layer in block_linears(model).items():
        bases = [cuber.bases[name][str(task)].double() for task in range(2)]
        move = 0.1 * torch.randn(layer.weight.shape, generator=rng)
        layer.weight.data += move
        layer.weight.grad = torch.randn(layer.weight.shape, generator=rng)
        result = layer.weight.grad.double()
        others = [torch.zeros(layer.in_features, 1).double()]
        for task, basis in enumerate(bases):
            g, o = new[name].double(), ended[task][name].double()
            stored = cuber.gradients[name][str(task)].double()
            assert float((stored * o).sum() / stored.norm() / o.norm()) == pytest.approx(1.0, abs=1e-4)
            sees = float((g @ basis).norm() / g.norm()) >= 0.6
            agrees = float((g * o).sum()) >= 0
            kinds.add((sees, agrees))
            if sees and agrees:
                result = result + 3.0 * move.double() @ basis @ basis.T
            else:
                others.append(basis)
        span = np.concatenate([other.numpy() for other in others], axis=1)
        expected[name] = result.numpy() @ (np.eye(len(span)) - span @ np.linalg.pinv(span, rcond=1e-4))
    assert {(True, True), (True, False)} <= kinds
    cuber.before_optimizer_step(model)
    for name, layer in block_linears(model).items():
        assert layer.weight.grad is not None
        np.testing.assert_allclose(layer.weight.grad.numpy(), expected[name], atol=2e-3, err_msg=name)


def weights_after(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.family.module.named_parameters()}


def test_where_no_task_may_be_moved_it_is_gpm(learner_of: Callable[..., Learner]) -> None:
    """After one task, whose basis is the only one; `sufficient` 1 is what no gradient reaches."""
    # in float64: AdamW blows up what rounding leaves of a gradient that is projected away
    with exact_arithmetic(torch.float64):
        one = weights_after(learner_with(learner_of, {"name": "cuber", "epsilon": 0.9, "sufficient": 1.0}, tasks=2))
        gpm = weights_after(learner_with(learner_of, {"name": "projection", "epsilon": 0.9}, tasks=2))
        plain = weights_after(learner_with(learner_of, tasks=2))
    assert any(not torch.allclose(plain[name], w, atol=1e-4) for name, w in gpm.items())
    for name, w in gpm.items():
        torch.testing.assert_close(one[name], w, atol=1e-8, rtol=0, msg=name)


def test_where_all_may_be_moved_without_penalty_it_is_fine_tuning(learner_of: Callable[..., Learner]) -> None:
    free = {"name": "cuber", "epsilon": 0.9, "sufficient": 1e-9, "correlated": -1.0, "strength": 0.0}
    learner = learner_with(learner_of, free, tasks=3)
    plain = weights_after(learner_with(learner_of, tasks=3))
    for name, w in weights_after(learner).items():
        torch.testing.assert_close(w, plain[name], atol=1e-6, rtol=0, msg=name)
    counts = cuber_of(learner).diagnostics()["open"]
    assert isinstance(counts, list) and set(counts) == {2}
