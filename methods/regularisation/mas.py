"""Memory aware synapses (arXiv 1711.09601): weights are important where the outputs are sensitive to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, at_least_float32, trainable
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.example_gradients import mean_over_examples
from methods.shared.snapshots import add_pull, copies, fitted, squared_distance


class MasSettings(Settings):
    """The paper's lambda is 1."""

    strength: float = Field(1.0, ge=0, allow_inf_nan=False, description="lambda")
    samples: int | None = Field(256, ge=1, description="examples for the importance, drawn at random; null: all")


def sensitivity(context: Context, model: nn.Module, batches: Iterable[Batch], samples: int | None) -> dict[str, Tensor]:
    """Omega_i, the mean over examples of |d ||f(x)||^2 / d theta_i|, f being the logits of the answer."""

    def squared_norm(example: Batch) -> Tensor:
        logits = context.forward(model, example)[1]
        return at_least_float32(logits).square().sum()

    return mean_over_examples(context, model, batches, samples, squared_norm, lambda g, norm: g.abs())


class Mas(CacheFields, Method):
    """Adds lambda * sum_i Omega_i (theta_i - theta_i^{t-1})^2, where Omega sums the sensitivities after all earlier tasks.

    Of a classifier, f(x) are the logits of the labels seen so far. Of a language model they are the logits at the answer's
    tokens; the answer is read along, so there the method is not free of labels as it is in the paper.
    """

    Settings = MasSettings
    card = Card(
        summary="hold weights by the outputs' sensitivity to them",
        paper="1711.09601",
        needs=("boundaries",),
        memory="2 copies of the trained weights",
        space={"strength": [1e-3, 1e-2, 0.1, 1.0, 10.0]},
        requires_shared_weights=True,
        strength_zero={"strength": 0.0},
        strong={"strength": 10.0},
    )

    def __init__(self, settings: MasSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.omega: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.penalty: float | Tensor = 0.0  # of the present step

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # the first task's penalty is none, but its sensitivities are part of the state
        if task_id == 0:
            return self.settings.model_dump(include={"samples"})
        return self.settings.model_dump()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        parameters = trainable(model)
        self.omega = fitted(self.omega, parameters)
        self.anchor = fitted(self.anchor, parameters)

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.penalty = 0.0
        if self.anchor:
            distance = squared_distance(trainable(model), self.anchor, self.omega)
            self.penalty = self.settings.strength * distance

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # all micro-batches of all workers together count it once
        return loss + batch.loss_weight * self.penalty

    def add_gradients(self, model: nn.Module) -> None:
        if self.anchor:
            add_pull(trainable(model), self.anchor, 2 * self.settings.strength, self.omega)

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        new = sensitivity(self.context, model, batches, self.settings.samples)
        for name, omega in new.items():
            # the first task has no earlier ones, and a growing adapter method new parameters
            if name in self.omega:
                new[name] = self.omega[name] + omega
        self.omega = new
        self.anchor = copies(trainable(model))

    def state_dict(self) -> State:
        if not self.anchor:
            return {}
        return {"omega": self.omega, "anchor": self.anchor}

    def load_state_dict(self, state: State) -> None:
        self.omega = dict(state["omega"])
        self.anchor = dict(state["anchor"])
