"""O-LoRA: a new adapter for every task, kept orthogonal to the earlier ones (arXiv 2310.14152)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTask, AdapterPerTaskSettings, adapters, lora_layers
from methods.base import Context
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import ADAPTER_RATES, Card

Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strengths = Annotated[tuple[Strength, ...], Field(min_length=1)]


class OLoraSettings(AdapterPerTaskSettings):
    """Defaults: the released scripts for orders 1-3. For the 15 tasks they vary lambda1 (0.5, later 5) and lambda2 (0 to 0.3)
    by task; a list gives a value for each task, the last one for all that follow.
    """

    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the adapter's input")
    lambda1: Strength | Strengths = Field(0.5, description="weight of the overlap with earlier adapters")
    lambda2: Strength | Strengths = Field(0.0, description="weight of the new adapter's L2 norms")


def strength(value: float | Sequence[float], task_id: int) -> float:
    """A task's value; of a list that is too short, the last."""
    if isinstance(value, int | float):
        return float(value)
    return float(value[min(task_id, len(value) - 1)])


def overlap(new_RI: Tensor, old_QI: Tensor) -> Tensor:
    """Sum of |A_old A_new^T|: zero where every input direction of the new A is orthogonal to every one of the old ones."""
    return (old_QI @ new_RI.T).abs().sum()


class OLora(CacheFields, AdapterPerTask):
    """IncLoRA, with loss += lambda1 sum over layers and i < t of |A_i A_t^T|_1 + lambda2 sum of ‖A_t‖_2 + ‖B_t‖_2.

    As the released code; the paper's formula squares the entries of A_i A_t^T instead of taking their size. The norms are
    not squared, in the code as here.
    """

    Settings = OLoraSettings
    card = Card(
        summary="a new low-rank adapter for every task, orthogonal to the earlier ones",
        paper="2310.14152",
        needs=("boundaries",),
        memory="one adapter a task",
        space={"lambda1": (0.1, 0.5, 1.0, 5.0), "lambda2": (0.0, 0.1, 0.3)},
        training_space={"lr": ADAPTER_RATES},
        only_lora_layers=True,
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
    )

    def __init__(self, settings: OLoraSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.strengths = (0.0, 0.0)
        self.pairs: list[tuple[nn.Parameter, Tensor]] = []
        self.new: list[nn.Parameter] = []

    def model_cache_fields(self) -> Mapping[str, Any]:
        # the strengths of the penalties change no untrained model; each task's count from that task on
        return self.settings.model_dump(exclude={"lambda1", "lambda2"})

    def cache_fields(self, task_id: int) -> Mapping[str, Any]:
        lambda1, lambda2 = self._strengths(task_id)
        return {**self.model_cache_fields(), "lambda1": lambda1, "lambda2": lambda2}

    def _strengths(self, task_id: int) -> tuple[float, float]:
        overlap_strength = 0.0
        # the first task has nothing to be orthogonal to
        if task_id:
            overlap_strength = strength(self.settings.lambda1, task_id)
        return overlap_strength, strength(self.settings.lambda2, task_id)

    def before_task(self, model: nn.Module, task_id: int, batches: object) -> None:
        self.strengths = self._strengths(task_id)
        # `grow` has let the newest adapter's matrices train, and no others
        self.new = []
        for parameter in adapters(model).values():
            if parameter.requires_grad:
                self.new.append(parameter)
        # put together here, not in every step: the old ones do not move while this task trains
        self.pairs = []
        for _, layer in lora_layers(model):
            old = []
            for i in range(task_id):
                old.append(layer.lora_A[str(i)].weight.detach())  # type: ignore[index, union-attr]
            if old:
                new: nn.Parameter = layer.lora_A[str(task_id)].weight  # type: ignore[index, union-attr]
                self.pairs.append((new, torch.cat(old)))

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        lambda1, lambda2 = self.strengths
        # a strength of zero adds no term, instead of one that is zero, and so trains IncLoRA bit for bit
        if lambda1:
            total_overlap: Tensor | float = 0.0
            for new, old in self.pairs:
                total_overlap = total_overlap + overlap(new, old)
            loss = loss + batch.loss_weight * lambda1 * total_overlap
        if lambda2:
            total_norm: Tensor | float = 0.0
            for parameter in self.new:
                total_norm = total_norm + parameter.norm()
            loss = loss + batch.loss_weight * lambda2 * total_norm
        return loss

    def after_task(self, model: nn.Module, task_id: int, batches: object) -> None:
        self.pairs = []
        self.new = []
