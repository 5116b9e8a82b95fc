"""Replay: a small share of the earlier tasks' examples is trained on again, beside the new task's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from methods.base import Method, Settings
from methods.replay.memory import draw, kept
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.data_policy import DataPolicy, Example

Allocation = Literal["all", "uniform", "power", "exponential", "recent", "reservoir"]


class ReplaySettings(Settings):
    """`fraction` of an old task's examples is kept; `allocation` says how many of these come back with the present task."""

    fraction: float = Field(0.02, ge=0, le=1, description="share of each task's examples that is kept")
    allocation: Allocation = Field(
        "all", description="all that is kept; or fraction x new examples, dealt out among tasks"
    )
    alpha: float = Field(1.0, gt=0, description="power: exponent; exponential: rate; of the age of a task")
    recent: int = Field(1, ge=1, description="recent: of the last so many tasks")


def weights(allocation: Allocation, task_id: int, alpha: float, recent: int) -> list[float]:
    """The share of each earlier task i < t, summing to 1: w_i by its age t - i.

    uniform: 1; power: (age + 1)^-alpha; exponential: e^(-alpha age); recent: 1 for the last tasks, else 0.
    """
    unscaled = []
    for age in range(task_id, 0, -1):  # the first task is the oldest
        if allocation == "power":
            weight = (age + 1) ** -alpha
        elif allocation == "exponential":
            weight = math.exp(-alpha * age)
        elif allocation == "recent":
            weight = float(age <= recent)
        else:
            weight = 1.0
        unscaled.append(weight)
    total = sum(unscaled)
    return [weight / total for weight in unscaled]


def deal(total: int, shares: Sequence[float]) -> list[int]:
    """`total` whole examples in these shares; what rounding leaves goes to the largest remainders, the first of equal ones."""
    counts = []
    remainders = []
    for share in shares:
        exact = total * share
        # a share that is whole but for rounding counts as whole
        counts.append(math.floor(exact + 1e-9))
        remainders.append(exact - counts[-1])
    # sorted() keeps the order of equal ones
    by_remainder = sorted(range(len(remainders)), key=lambda i: -remainders[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


class Replay(DataPolicy, CacheFields, Method):
    """Adds kept examples of earlier tasks to a task's training set, which is shuffled as a whole.

    What is kept of a task is a seeded choice that never changes; it is read again from the stream, so no checkpoint holds
    examples and the first task is plain training's. allocation: `all` (as LoRAReplay in arXiv 2310.14152: every kept example
    with every later task); `uniform`, `power` (arXiv 2204.05842 in spirit: its constants are not published), `exponential`,
    `recent`: round(fraction x new examples), dealt out by `weights`, so these differ in the allocation alone; `reservoir`: as
    many, drawn evenly from all kept examples together.
    """

    Settings = ReplaySettings
    card = Card(
        summary="train on a few old examples again",
        paper="2310.14152",
        needs=("boundaries", "old data"),
        memory="a share of each task's examples",
        kept_share="fraction",
        # of power alone an amount is left to choose: what is kept and how it is dealt out are the scenario's and the method's
        space={"alpha": [0.5, 1.0, 1.5, 2.0]},
        space_only_with={"alpha": {"allocation": ("power", "exponential")}},
        strength_zero={"fraction": 0.0},
        strong={"fraction": 0.5},
    )

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        return self.settings.model_dump()

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        if self.cache_fields(task_id) is None:
            return chosen
        s: ReplaySettings = self.settings
        seed = (self.context.seed, "replay", task_id)
        by_task = []
        together: list[Example] = []
        for task in range(task_id):
            by_task.append(kept(self.context.seed, task, old(task), s.fraction))
            together.extend(by_task[task])
        if s.allocation == "all":
            return [*chosen, *together]
        total = round(s.fraction * len(chosen))
        if s.allocation == "reservoir":
            return [*chosen, *draw(together, total, *seed)]
        counts = deal(total, weights(s.allocation, task_id, s.alpha, s.recent))
        drawn: list[Example] = []
        for task, (examples, count) in enumerate(zip(by_task, counts, strict=True)):
            drawn.extend(draw(examples, count, *seed, task))
        return [*chosen, *drawn]
