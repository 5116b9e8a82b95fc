"""The random control masks as many output units as MIGU, at random, the same on every worker."""

from __future__ import annotations

from collections.abc import Callable

import torch

from methods import generator
from methods.masking.random_mask import random_units
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
