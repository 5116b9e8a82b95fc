"""The random control masks as many output units as MIGU, at random, the same on every worker."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from methods import Context, generator
from methods.masking.random_mask import RandomMask, RandomMaskSettings, random_units
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def test_it_really_masks_that_many_different_units() -> None:
    rng = generator(3, "random_mask", 1)
    first, second = random_units(10, 0.3, rng).tolist(), random_units(10, 0.3, rng).tolist()
    assert len(set(first)) == len(set(second)) == 7
    assert set(first) | set(second) <= set(range(10))
    assert first != second
    again = generator(3, "random_mask", 1)
    assert random_units(10, 0.3, again).tolist() == first


def masked_units(seed: int, task: int, steps: int) -> list[list[int]]:
    """What is masked of two layers of 20 units, step by step; every other gradient stays as it is."""
    model = nn.ModuleDict({"0": nn.Linear(2, 20, bias=False), "1": nn.Linear(2, 20, bias=False)})
    method = RandomMask(RandomMaskSettings(ratio=0.3), Context(seed))
    method.before_task(model, task, [])
    found = []
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.full_like(p, 3.0)
        method.before_optimizer_step(model)
        for p in model.parameters():
            assert p.grad is not None
            masked = (p.grad == 0).all(1)
            assert (p.grad[~masked] == 3.0).all()
            found.append(masked.nonzero().flatten().tolist())
    return found


def test_every_layer_step_task_and_seed_has_units_of_its_own() -> None:
    found = masked_units(7, 1, 2) + masked_units(7, 2, 1) + masked_units(8, 1, 1)
    assert [len(units) for units in found] == [14] * 8
    assert len({tuple(units) for units in found}) == 8
    assert masked_units(7, 1, 2) == found[:4]
    assert masked_units(7, 0, 1) == [[], []], "the first task is trained plainly"


def test_units_stand_still_for_exactly_the_masked_share(learner_of: Callable[..., Learner]) -> None:
    """One step without weight decay: the units that moved are the kept share, in every masked layer."""
    plugin = {"name": "random_mask", "ratio": 0.25, "mask_first_task": True}
    learner = learner_of(
        methods=[{"tuning": "full", "plugins": [plugin]}],
        stream={"max_train": 8},
        training={"lr": 1e-3, "weight_decay": 0.0},
    )
    module = learner.family.module
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    train_task(learner, 0, lambda event: None)
    checked = 0
    for name, p in module.named_parameters():
        if name.endswith((".q.weight", ".v.weight", ".wo.weight")):  # a dead ReLU would stop units of wi too
            moved = (p != before[name]).any(dim=1).sum().item()
            assert moved == len(p) // 4, name
            checked += 1
    assert checked >= 8
    assert not torch.equal(module.shared.weight, before["shared.weight"])
