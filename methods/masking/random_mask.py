"""The control for MIGU: as many output units are masked, but chosen at random (arXiv 2406.17245, its random update)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, generator
from methods.batch import Batch
from methods.masking.output_units import maskable_weights, masked_count, zero_unit_gradients
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card


class RandomMaskSettings(Settings):
    """As MIGU's, so that the two differ in the choice of output units alone."""

    ratio: float = Field(0.3, gt=0, le=1, description="share of output units that are updated")
    mask_first_task: bool = Field(False, description="mask during the first task too")


def random_units(units: int, ratio: float, rng: torch.Generator) -> Tensor:
    """Indices of floor((1 - ratio) * units) output units, without replacement."""
    return torch.randperm(units, generator=rng)[: masked_count(ratio, units)]


class RandomMask(CacheFields, Method):
    """Every step, in every layer that MIGU masks, zero the gradients of a random share of the output units.

    The released code's control masks nothing in full fine-tuning; this one does mask. The generator is seeded anew by
    (seed, task), so all workers draw the same units and nothing needs to be kept between tasks.
    """

    Settings = RandomMaskSettings
    card = Card(
        summary="update a random share of the output units: the control for MIGU",
        paper="2406.17245",
        needs=("boundaries",),
        space={"ratio": [0.1, 0.2, 0.3, 0.5, 0.7]},
        requires_output_units=True,
        not_with={"migu": "both choose the output units that are updated, so that neither's choice would count"},
        strength_zero={"ratio": 1.0, "mask_first_task": True},
        strong={"ratio": 0.3},
    )

    def __init__(self, settings: RandomMaskSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.rng: torch.Generator | None = None

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0 and not self.settings.mask_first_task:
            return None
        return self.settings.model_dump(exclude={"mask_first_task"})

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        maskable_weights(model)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.rng = None
        if self.cache_fields(task_id) is not None:
            self.rng = generator(self.context.seed, "random_mask", task_id)

    def before_optimizer_step(self, model: nn.Module) -> None:
        if self.rng:
            for maskable in maskable_weights(model):
                masked = random_units(maskable.num_units, self.settings.ratio, self.rng)
                # drawn on the CPU, so that a run on another device masks the same units
                zero_unit_gradients(maskable, masked.to(maskable.weight.device))

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.rng = None
