"""L2 to the previous task's weights: the plainest of the rehearsal-free regularisers (arXiv 2203.17269)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, trainable
from methods.batch import Batch
from methods.masking.output_units import group_of
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.expert_layer import ExpertLayer
from methods.shared.snapshots import add_pull, copies, squared_distance


class L2Settings(Settings):
    """The paper's best scope for pretrained transformers is attention."""

    strength: float = Field(0.1, ge=0, allow_inf_nan=False, description="lambda")
    scope: Literal["all", "attention"] = Field("all", description="which trained parameters are held")


def new_experts(model: nn.Module) -> set[str]:
    """The names of the parameters that belong to experts which no step has moved: their B is zero, as an expert begins."""
    found = set()
    for layer_name, layer in model.named_modules():
        if not isinstance(layer, ExpertLayer):
            continue
        for name in dict(layer.named_parameters(layer_name)):
            # A, B and what else an expert has are modules under its name; the base layer is under none
            expert = name.split(".")[-2]
            if expert in layer.lora_B and not layer.lora_B[expert].get_parameter("weight").any():
                found.add(name)
    return found


class L2(CacheFields, Method):
    """Adds lambda / 2 * sum_i (theta_i - theta_i^{t-1})^2 while training task t > 0.

    The sum leaves out what no task has trained yet: a head's units of labels that come with task t, and a new expert of a
    mixture. Their values are random, and holding them would only hinder the new task.

    Of LoRA, it holds A and B, not their product. The anchor is taken when a task begins, so nothing is kept between tasks.
    """

    Settings = L2Settings
    card = Card(
        summary="stay near the previous task's weights",
        paper="2203.17269",
        needs=("boundaries",),
        memory="1 copy of the trained weights",
        space={"strength": [1e-3, 1e-2, 0.1, 1.0, 10.0]},
        requires_shared_weights=True,
        strength_zero={"strength": 0.0},
        strong={"strength": 100.0},
    )

    def __init__(self, settings: L2Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.anchor: dict[str, Tensor] = {}
        self.penalty: float | Tensor = 0.0  # of the present step

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        return self.settings.model_dump()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.cache_fields(task_id) is None:
            return
        held: dict[str, Tensor] = dict(trainable(model))
        for name in new_experts(model):
            held.pop(name, None)
        if self.settings.scope == "attention":
            held = {name: p for name, p in held.items() if group_of(name) == "attention"}
        if not held:
            raise ValueError("l2.scope: no trained parameter belongs to an attention block")
        label_units = set(map(id, self.context.label_units))
        for name, parameter in held.items():
            if id(parameter) in label_units:
                held[name] = parameter[: self.context.labels[task_id - 1]]
        self.anchor = copies(held)

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.penalty = 0.0
        if self.anchor:
            self.penalty = self.settings.strength / 2 * squared_distance(trainable(model), self.anchor)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # all micro-batches of all workers together count it once
        return loss + batch.loss_weight * self.penalty

    def add_gradients(self, model: nn.Module) -> None:
        if self.anchor:
            add_pull(trainable(model), self.anchor, self.settings.strength)

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        # the next task's anchor are the weights that it begins with, which the checkpoint has anyway
        self.anchor = {}
