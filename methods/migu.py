"""MIGU: magnitude-based gradient updating (arXiv 2406.17245)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Batch, Context, Method, Settings
from methods.rows import Magnitudes, block_rows, masked_count, zero_gradient_rows


class MiguSettings(Settings):
    """`ratio` is the kept share, 1 - T in the paper's terms; its default T = 0.7 keeps 30 %."""

    ratio: float = Field(0.3, gt=0, le=1, description="share of rows that are updated")
    mask_first_task: bool = Field(False, description="mask during the first task too (the released code does not)")
    count_padding: bool = Field(False, description="count padding tokens too (the released code does)")


def rows_to_mask(magnitude_O: Tensor, ratio: float) -> Tensor:
    """Indices of the floor((1 - ratio) * d_out) rows of smallest magnitude; of equal ones the first."""
    return torch.argsort(magnitude_O, stable=True)[: masked_count(ratio, len(magnitude_O))]


class Migu(Method):
    """Zero the gradient rows of the output channels with the smallest n_k = mean over tokens of |y_k|.

    Applies to query, key, value, output and feed-forward layers; for LoRA to the rows of A by |A x| and of B by the
    combined output. n is taken over the whole global batch (all micro-batches and workers), after backward and before
    clipping. As in the released code the first task is trained without a mask unless `mask_first_task`. We depart from
    that code in leaving the LM head alone (as the paper says), and padding tokens out of the mean. AdamW's momentum and
    weight decay still move masked rows, in the paper's code as here.
    """

    Settings = MiguSettings
    summary = "update only the rows whose outputs are large"
    paper = "2406.17245"
    requires_rows = True

    def __init__(self, settings: MiguSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.magnitudes: Magnitudes | None = None

    def influence(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0 and not self.settings.mask_first_task:
            return None
        # Whether task 1 was masked shows in its own entry; after it the flag no longer acts.
        return self.settings.model_dump(exclude={"mask_first_task"})

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.influence(task_id) is not None:
            self.magnitudes = Magnitudes(block_rows(model), self.settings.count_padding)

    def on_batch(self, batch: Batch) -> Batch:
        if self.magnitudes:
            self.magnitudes.see(batch)
        return batch

    def before_optimizer_step(self, model: nn.Module) -> None:
        if self.magnitudes:
            for rows, magnitude_O in self.magnitudes.take(self.context.mean_over_workers):
                zero_gradient_rows(rows.weight, rows_to_mask(magnitude_O, self.settings.ratio))

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.magnitudes:
            self.magnitudes.close()
            self.magnitudes = None
