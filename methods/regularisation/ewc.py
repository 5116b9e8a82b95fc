"""Elastic weight consolidation (arXiv 1612.00796) and its online form (arXiv 1805.06370)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, trainable
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.example_gradients import mean_over_examples
from methods.shared.snapshots import add_pull, copies, fitted, squared_distance


class EwcSettings(Settings):
    """`gamma` chooses between the two papers."""

    strength: float = Field(100.0, ge=0, allow_inf_nan=False, description="lambda")
    gamma: float | None = Field(
        None, ge=0, le=1, description="online EWC: how much of the old Fisher stays; null: a penalty for every task"
    )
    samples: int | None = Field(256, ge=1, description="examples for the Fisher, drawn at random; null: all")


def fisher_diagonal(
    context: Context, model: nn.Module, batches: Iterable[Batch], samples: int | None
) -> dict[str, Tensor]:
    """The mean over examples of (d log p(answer | input) / d theta_i)^2."""
    return mean_over_examples(
        context, model, batches, samples, lambda example: context.forward(model, example)[0], lambda g, loss: g**2
    )


def joined(fisher_a: Tensor, anchor_a: Tensor, fisher_b: Tensor, anchor_b: Tensor) -> tuple[Tensor, Tensor]:
    """One quadratic that is F_a (x - a)^2 + F_b (x - b)^2 but for a constant: F_a + F_b about the weighted mean."""
    fisher = fisher_a + fisher_b
    weighted_mean = anchor_a + fisher_b / fisher * (anchor_b - anchor_a)
    # exactly b where only b holds: a new label's output units must not depend on what stood in for them before
    return fisher, torch.where(fisher_a > 0, weighted_mean, anchor_b)


class Ewc(CacheFields, Method):
    """Adds lambda / 2 * sum_{s < t} sum_i F_{s,i} (theta_i - theta_{s,i})^2 while training task t.

    F_s is the diagonal of the Fisher information at the weights theta_s after task s, from the true labels (the "empirical"
    Fisher) of each example alone, in evaluation mode. The tasks' penalties add up to one quadratic about the F-weighted mean
    of the theta_s, and that is what is kept: the same gradients as the paper's in the memory of one task; the loss is
    smaller by a constant. With `gamma`, online EWC: F <- gamma F + F_t about the newest weights.
    """

    Settings = EwcSettings
    card = Card(
        summary="hold weights by their Fisher information",
        paper="1612.00796",
        needs=("boundaries",),
        memory="2 copies of the trained weights",
        space={"strength": [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]},
        requires_shared_weights=True,
        strength_zero={"strength": 0.0},
        strong={"strength": 1e6},
    )

    def __init__(self, settings: EwcSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.fisher: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.penalty: float | Tensor = 0.0  # of the present step

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # the first task's penalty is none, but its Fisher is part of the state
        if task_id == 0:
            return self.settings.model_dump(include={"samples"})
        return self.settings.model_dump()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        parameters = trainable(model)
        self.fisher = fitted(self.fisher, parameters)
        self.anchor = fitted(self.anchor, parameters)

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.penalty = 0.0
        # none while the first task is trained
        if self.anchor:
            distance = squared_distance(trainable(model), self.anchor, self.fisher)
            self.penalty = self.settings.strength / 2 * distance

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # all micro-batches of all workers together count it once
        return loss + batch.loss_weight * self.penalty

    def add_gradients(self, model: nn.Module) -> None:
        if self.anchor:
            add_pull(trainable(model), self.anchor, self.settings.strength, self.fisher)

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        fisher = fisher_diagonal(self.context, model, batches, self.settings.samples)
        anchor = copies(trainable(model))
        gamma = self.settings.gamma
        for name, old in self.fisher.items():
            if gamma is None:
                fisher[name], anchor[name] = joined(old, self.anchor[name], fisher[name], anchor[name])
            else:
                fisher[name] += gamma * old
        self.fisher = fisher
        self.anchor = anchor

    def state_dict(self) -> State:
        if not self.anchor:
            return {}
        return {"fisher": self.fisher, "anchor": self.anchor}

    def load_state_dict(self, state: State) -> None:
        self.fisher = dict(state["fisher"])
        self.anchor = dict(state["anchor"])
