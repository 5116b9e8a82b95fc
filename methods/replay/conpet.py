"""ConPET's dynamic replay: batches in which old tasks have a fixed share (arXiv 2309.14763, static version)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from methods.base import Context, Method, Settings, generator
from methods.replay.memory import kept
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.data_policy import DataPolicy, Example


class ConpetSettings(Settings):
    """Defaults as in the released code: half of a batch is old, and all old examples may come."""

    rho: float = Field(1.0, gt=0, allow_inf_nan=False, description="new examples for each old one in a batch")
    fraction: float = Field(1.0, ge=0, le=1, description="share of each task's examples that is kept")


def new_examples(size: int, rho: float) -> int:
    """How many of a batch of `size` are new: size x rho / (rho + 1), rounded down, but at least 1."""
    return max(1, math.floor(size * rho / (rho + 1) + 1e-9))


class Conpet(DataPolicy, CacheFields, Method):
    """From the second task on, a batch of B holds B rho / (rho + 1) new examples; each of the others is an example, drawn
    uniformly, of an earlier task, drawn uniformly. So a step costs the same however many tasks there were.

    As the released code, but that takes a fixed number of batches for every task (`batch_limit`, 100 to 2500). Here an epoch
    goes once over the new examples, in (rho + 1) / rho times as many steps as plain training's. It trains LoRA of rank 4;
    the preset does, and the plug-in goes with any tuning method. The paper's other version, one adapter a task and a
    selector, is not here.
    """

    Settings = ConpetSettings
    card = Card(
        summary="fill a fixed share of each batch with old examples, tasks alike",
        paper="2309.14763",
        needs=("boundaries", "old data"),
        memory="a share of each task's examples",
        kept_share="fraction",
        space={"rho": [0.5, 1.0, 2.0, 4.0]},
        strength_zero={"fraction": 0.0},
        strong={"fraction": 0.5},
    )

    def __init__(self, settings: ConpetSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.size = 0
        self.kept: dict[int, list[Example]] = {}  # by task: reading one tokenizes all of it

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        return self.settings.model_dump()

    def _acts(self, task_id: int) -> bool:
        return task_id > 0 and self.settings.fraction > 0

    def num_new_examples(self, task_id: int, size: int) -> int:
        self.size = size  # what `compose_batch` fills up to
        if not self._acts(task_id):
            return size
        num_new = new_examples(size, self.settings.rho)
        # found out here and not with the settings: the batch size is not the method's
        if num_new == size:
            raise ValueError(f"conpet.rho: {self.settings.rho:g} leaves a batch of {size} no room for an old example")
        return num_new

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        if not self._acts(task_id):
            return chosen
        # from the step alone, so that every worker, and a run that goes on, composes the same batch
        rng = generator(self.context.seed, "conpet", task_id, step)
        batch = list(chosen)
        while len(batch) < self.size:
            batch.append(self._draw(task_id, rng))
        return batch

    def _draw(self, task_id: int, rng: torch.Generator) -> Example:
        # first the task, then its example: a large task comes no more often than a small one
        task = int(torch.randint(task_id, (), generator=rng))
        if task not in self.kept:
            examples = self.context.examples(task)
            self.kept[task] = kept(self.context.seed, task, examples, self.settings.fraction)
        examples_of_task = self.kept[task]
        example_index = int(torch.randint(len(examples_of_task), (), generator=rng))
        return examples_of_task[example_index]
