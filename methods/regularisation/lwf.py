"""Learning without forgetting (arXiv 1606.09282): keep what the model before this task would have answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, at_least_float32, trainable
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.passes import evaluating
from methods.shared.snapshots import copies, with_weights


class LwfSettings(Settings):
    """Defaults: the paper's weight 1 and temperature 2."""

    strength: float = Field(1.0, ge=0, allow_inf_nan=False, description="beta")
    temperature: float = Field(2.0, gt=0, allow_inf_nan=False, description="T")


def distillation(old_NK: Tensor, new_NK: Tensor, temperature: float) -> Tensor:
    """T^2 * sum over answers of KL(softmax(old / T) || softmax(new / T))."""
    old = F.log_softmax(at_least_float32(old_NK) / temperature, dim=-1)
    new = F.log_softmax(at_least_float32(new_NK) / temperature, dim=-1)
    return temperature**2 * F.kl_div(new, old, reduction="sum", log_target=True)


class Lwf(Cost, CacheFields, Method):
    """Adds beta * T^2 * mean over answers of KL(p_old || p_new) on the new task's inputs, from the second task on.

    p_old comes from the model as it was when the task began, in evaluation mode. Answers are examples for a classifier, over
    the columns of earlier tasks' labels (the paper's old heads), and answer tokens for a language model, over the whole
    vocabulary, the true answer being read along. The teacher is taken when a task begins, so nothing is kept between tasks.
    """

    Settings = LwfSettings
    card = Card(
        summary="keep the previous model's answers on new inputs",
        paper="1606.09282",
        needs=("boundaries",),
        memory="1 copy of the trained weights, and a forward pass more",
        space={"strength": [0.1, 0.3, 1.0, 3.0], "temperature": [1.0, 2.0]},
        strength_zero={"strength": 0.0},
        strong={"strength": 10.0},
    )

    def __init__(self, settings: LwfSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.teacher: dict[str, Tensor] = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        return self.settings.model_dump()

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        if self.cache_fields(task_id) is None:
            return ExtraPasses()
        return ExtraPasses(forward=1.0)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.cache_fields(task_id) is not None:
            self.teacher = copies(trainable(model))

    @torch.no_grad()
    def _old_logits(self, model: nn.Module, batch: Batch) -> Tensor:
        with evaluating(model), with_weights(model, self.teacher) as teacher:
            return self.context.forward(teacher, batch)[1]

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        if not self.teacher:
            return loss
        old_NK = self._old_logits(model, batch)
        # the old model has learnt nothing about a classifier's later labels; of a vocabulary all columns count
        columns = slice(batch.num_old_classes)
        kl = distillation(old_NK[:, columns], logits[:, columns], self.settings.temperature)
        # a sum over this micro-batch's answers, as the loss is before it is divided
        return loss + self.settings.strength * kl / batch.loss_denominator

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.teacher = {}
