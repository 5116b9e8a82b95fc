"""The control for MIGU: as many rows are masked, but chosen at random (arXiv 2406.17245, its random update)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, generator
from methods.batch import Batch
from methods.masking.rows import block_rows, masked_count, zero_gradient_rows
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card


class RandomMaskSettings(Settings):
    """As MIGU's, so that the two differ in the choice of rows alone."""

    ratio: float = Field(0.3, gt=0, le=1, description="share of rows that are updated")
    mask_first_task: bool = Field(False, description="mask during the first task too")


def random_rows(rows: int, ratio: float, rng: torch.Generator) -> Tensor:
    """Indices of floor((1 - ratio) * rows) rows, without replacement."""
    return torch.randperm(rows, generator=rng)[: masked_count(ratio, rows)]


class RandomMask(CacheFields, Method):
    """Every step, in every layer that MIGU masks, zero the gradients of a random share of the rows.

    The released code's control masks nothing in full fine-tuning; this one does mask. The generator is seeded anew by
    (seed, task), so all workers draw the same rows and nothing needs to be kept between tasks.
    """

    Settings = RandomMaskSettings
    card = Card(
        summary="update a random share of the rows: the control for MIGU",
        paper="2406.17245",
        needs=("boundaries",),
        space={"ratio": [0.1, 0.2, 0.3, 0.5, 0.7]},
        requires_output_units=True,
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

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        masks = self.cache_fields(task_id) is not None
        self.rng = generator(self.context.seed, "random_mask", task_id) if masks else None

    def before_optimizer_step(self, model: nn.Module) -> None:
        if self.rng:
            for rows in block_rows(model):
                masked = random_rows(rows.weight.shape[0], self.settings.ratio, self.rng)
                zero_gradient_rows(rows.weight, masked.to(rows.weight.device))

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.rng = None
