"""OSF: two tasks of it against a second implementation, what leaks, and that the weights go back into the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from methods.subspaces.osf import Osf, preserved_share
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, assert_near, batches_of, mean_loss

COUNT = {"tiny-t5": 2 * 6 + 2 * 10, "tiny-bert": 2 * 6, "tiny-llama": 2 * 7}


def learner(make: Callable[..., Learner], model: str = "tiny-t5", lr: float = 1e-2, **settings: Any) -> Learner:
    few = {"stream": {"max_train": 40}, "training": {"lr": lr}}
    return make(model=model, methods=[{"tuning": {"name": "osf", **settings}}], **few)


class Split:
    """W = H + U S V, with projectors on the complement of the preserved directions, all written out."""

    def __init__(self, weight: Tensor, keep: int) -> None:
        u, s, v = torch.linalg.svd(weight.float(), full_matrices=False)
        u, s, v = u.to(weight.dtype), s.to(weight.dtype), v.to(weight.dtype)
        self.factors = [u[:, keep:].clone(), s[keep:].clone(), v[keep:].clone()]
        self.rest = weight - self.product()
        # peft projects on the trained directions where the factor is square, else off the preserved ones
        square_u, square_v = weight.shape[0] <= weight.shape[1], weight.shape[0] >= weight.shape[1]
        self.left = u[:, keep:] @ u[:, keep:].T if square_u else torch.eye(len(u)) - u[:, :keep] @ u[:, :keep].T
        self.right = v[keep:].T @ v[keep:] if square_v else torch.eye(v.shape[1]) - v[:keep].T @ v[:keep]

    def product(self) -> Tensor:
        u, s, v = self.factors
        return (u * s) @ v


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("project", [False, True])
def test_two_tasks_equal_a_second_implementation(project: bool, model: str, learner_of: Callable[..., Learner]) -> None:
    run = learner(learner_of, model, lr=1e-3, preserved=[0.25, 0.5], project=project)
    module = run.family.module.double()
    plain = copy.deepcopy(module).train()
    names = [n for n in run.weights() if "classifier" not in n]
    assert len(names) == COUNT[model]
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    torch.set_default_dtype(torch.float64)
    try:
        for task, share in ((0, 0.25), (1, 0.5)):
            with torch.no_grad():  # a split in float32 would magnify the rounding of the task before
                weights = {n: plain.get_parameter(n).copy_(module.get_parameter(n)) for n in names}
            splits = {n: Split(w, int(min(w.shape) * share)) for n, w in weights.items()}
            factors = [f.requires_grad_() for s in splits.values() for f in s.factors]
            adam = Adam([*factors, *heads], 1e-3)
            for batch in batches_of(run, task):
                whole = {n: s.rest + s.product() for n, s in splits.items()}
                loss = mean_loss(lambda **inputs: functional_call(plain, whole, kwargs=inputs), batch)  # noqa: B023
                gradients = list(torch.autograd.grad(loss, [*factors, *heads]))
                for i, split in enumerate(splits.values()):
                    gradients[3 * i] = split.left @ gradients[3 * i]
                    gradients[3 * i + 2] = gradients[3 * i + 2] @ split.right
                adam.step(gradients, decayed=len(factors))
                if project:
                    for split in splits.values():
                        with torch.no_grad():
                            split.factors[0].copy_(split.left @ split.factors[0])
                            split.factors[2].copy_(split.factors[2] @ split.right)
            with torch.no_grad():
                for n, s in splits.items():
                    plain.get_parameter(n).copy_(s.rest + s.product())
            before = {n: module.get_parameter(n).detach().clone() for n in names}
            train_task(run, task, lambda event: None)
            for n in names:
                assert not torch.equal(module.get_parameter(n), before[n]), "the task's training was lost"
                assert_near(module.get_parameter(n), plain.get_parameter(n), n)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, p in zip(["weight", "bias"], heads, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)
    assert not [n for n, _ in module.named_modules() if "osf" in n or "base_layer" in n]


def test_projecting_the_weights_stops_the_leak(learner_of: Callable[..., Learner]) -> None:
    leaks = {}
    for project in (False, True):
        run = learner(learner_of, project=project)
        train_task(run, 0, lambda event: None)
        (leaks[project],) = run.stack.state_dict()["0:osf"]["leakage"]
    assert leaks[False] > 0.005
    assert leaks[True] < 1e-5


def test_the_preserved_directions_stay(learner_of: Callable[..., Learner]) -> None:
    run = learner(learner_of, preserved=0.5, project=True)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    before = run.family.module.get_parameter(name).detach().clone()
    train_task(run, 0, lambda event: None)
    change = run.family.module.get_parameter(name).detach() - before
    u, _, v = torch.linalg.svd(before)
    assert change.norm() > 1e-3
    assert (u[:, :16].T @ change).norm() < 1e-5 * change.norm() + 1e-6
    assert (change @ v[:16].T).norm() < 1e-5 * change.norm() + 1e-6


def test_shares_by_task_and_by_layer(learner_of: Callable[..., Learner]) -> None:
    assert [preserved_share([0.0, 0.5], t) for t in range(3)] == [0.0, 0.5, 0.5]
    run = learner(learner_of, preserved=0.0, ranks={"encoder.*wo": 0.75})
    assert isinstance(run.stack.tuning, Osf)
    module = run.family.module
    run.stack.before_task(module, 0, [])
    kept = {n: 32 - len(p) for n, p in module.named_parameters() if n.endswith("S_low")}
    assert {rank for n, rank in kept.items() if "wo" in n and "encoder" in n} == {24}
    assert {rank for n, rank in kept.items() if "wo" not in n} == {1}


def test_what_lies_outside_the_blocks_is_left_whole(learner_of: Callable[..., Learner]) -> None:
    """A target that the user names fits BERT's pooler and classifier too."""
    run = learner(learner_of, "tiny-bert", targets=["dense", "classifier"])
    names = set(run.weights())
    assert "classifier.weight" in names, "the head trains as it is"
    assert any(name.endswith("dense.weight") for name in names)
    assert not any("pooler" in name for name in names)
    run.stack.before_task(run.family.module, 0, [])
    tuning = run.stack.tuning
    assert isinstance(tuning, Osf)
    assert len(tuning.layers) == 2 * 3, "of each block the attention's output and both feed-forward layers"
    assert type(run.family.module.get_submodule("classifier")) is torch.nn.Linear


def test_a_task_without_a_step_leaks_nothing(learner_of: Callable[..., Learner]) -> None:
    run = learner(learner_of)
    tuning = run.stack.tuning
    assert isinstance(tuning, Osf)
    tuning.before_task(run.family.module, 0, [])
    tuning.after_task(run.family.module, 0, [])
    assert tuning.leaked == [0.0]
