"""Learners with MIGU, and what one task of theirs moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from methods import trainable
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def masked_learner(learner_of: Callable[..., Learner], tuning: str = "full", **changes: Any) -> Learner:
    """A learner of one step without weight decay, masked from the first task on."""
    settings = {"name": "migu", "mask_first_task": True, **changes.pop("settings", {})}
    training = {"weight_decay": 0.0, **changes.pop("training", {})}
    method = {"tuning": tuning, "plugins": [settings]}
    return learner_of(methods=[method], training=training, **{"stream": {"max_train": 8}, **changes})


def moved_units_of(learner: Learner) -> dict[str, int]:
    """How many output units of each parameter one task moves."""
    before = {n: p.detach().clone() for n, p in trainable(learner.family.module).items()}
    train_task(learner, 0, lambda event: None)
    after = trainable(learner.family.module)
    return {n: int((p.detach() != before[n]).flatten(1).any(1).sum()) for n, p in after.items() if p.ndim > 1}
