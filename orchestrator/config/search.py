"""What a user may ask for of a search: what is tried, on which streams, and how the best is chosen."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from orchestrator.config.section import Section, Seeds, check_unique
from orchestrator.config.stream import Streams
from streams.holdout import Level


class Dimension(Section):
    """What a search tries for one parameter: listed values, or a range."""

    values: tuple[float | int | bool | str | None, ...] | None = Field(None, min_length=1)
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    log: bool = Field(False, description="drawn evenly in the logarithm")
    integer: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        """Accepts [0.1, 0.3] and {low: 1e-5, high: 1e-3, log: true}."""
        if isinstance(value, list | tuple):
            return {"values": value}
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Dimension:
        if self.values is not None:
            self._check_list(self.values)
        else:
            self._check_range()
        return self

    def _check_list(self, values: tuple[Any, ...]) -> None:
        if self.low is not None or self.high is not None or self.log or self.integer:
            raise ValueError("give either a list of values, or low and high")
        # a grid would try it twice, and random draws would favour it
        if len(set(values)) != len(values):
            raise ValueError("a value is given twice")

    def _check_range(self) -> None:
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected a list of values, or {low, high, log, integer} with low < high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low > 0")

    @property
    def size(self) -> float:
        """How many values there are; infinite for a real range."""
        if self.values is not None:
            return len(self.values)
        assert self.low is not None and self.high is not None
        if not self.integer:
            return math.inf
        # both ends count, and ends that are no whole numbers are never drawn
        return math.floor(self.high) - math.ceil(self.low) + 1

    def value_at(self, fraction: float) -> float | int:
        """The value that lies at a fraction (0 to 1) of a range: of its logarithm where the dimension says so."""
        assert self.low is not None and self.high is not None
        value = self.low + (self.high - self.low) * fraction
        if self.log:
            value = self.low * (self.high / self.low) ** fraction
        if self.integer:
            # ends that are no whole numbers are never drawn
            return min(max(round(value), math.ceil(self.low)), math.floor(self.high))
        # Six digits are what is written and printed, so that a value read back is the one that was trained with.
        return float(f"{value:.6g}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value; of numbers alone."""
        if self.values is not None:
            numbers = [float(value) for value in self.values if value is not None]
            return min(numbers), max(numbers)
        assert self.low is not None and self.high is not None
        return self.low, self.high


class SearchConfig(Section):
    """How hyper-parameters are chosen, on streams that the evaluation never sees.

    One trial is one method with one choice of values, trained on every tuning stream with every tuning seed and scored on
    the dev split. The protocol is that of arXiv 2403.09066 with text; see `streams.holdout` for its levels.
    """

    streams: Streams
    holdout: Level = Field("tasks", description="what the tuning streams may share with the evaluation streams")
    allowed_related_pairs: tuple[tuple[str, str], ...] = Field(
        (), description="related data sets that may lie on two sides"
    )
    searcher: Literal["random", "grid", "tpe", "cma"] = Field(
        "random", description="tpe and cma: Optuna's; cma searches at random what is not a number, or is the only one"
    )
    scheduler: Literal["fifo", "asha"] = Field(
        "fifo", description="asha stops weak trials at rungs of finished tasks (its stopping variant)"
    )
    grace: int = Field(2, ge=2, description="asha: tasks before a trial can be stopped; early tasks mislead")
    reduction: float = Field(3, gt=1, description="asha: one in so many goes on at each rung")
    trials: int = Field(30, ge=1, description="for every method")
    trial_tasks: int | None = Field(None, ge=1, description="stop suggesting when a method's trials took so many tasks")
    select: Literal["final", "first-task"] = Field("final", description="first-task: tune on the first task alone")
    metric: Literal["aa", "aa_options"] = "aa"
    forgetting_weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="score = metric - weight x forgetting")
    seeds: Seeds = (0,)
    seed: int = Field(0, ge=0, description="of the searcher's own draws")
    at_once: int = Field(
        4, ge=1, description="tpe, cma, asha: a method's trials in rounds of so many, each knowing the rounds before it"
    )
    max_concurrent: int | None = Field(None, ge=1, description="trials side by side; null: as many as fit now")
    space: dict[str, Dimension] = Field(default_factory=dict, description="what is tried, where not as declared")

    @property
    def learns(self) -> bool:
        """Whether earlier trials decide what a trial tries."""
        return self.searcher in ("tpe", "cma")

    @property
    def in_rounds(self) -> bool:
        """Whether earlier trials decide what a trial tries or whether it goes on."""
        return self.learns or self.scheduler == "asha"

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        check_unique("search.seeds", self.seeds)
        check_unique("search.streams", [stream.name for stream in self.streams])
        # ASHA compares trials after each of several tasks
        if self.select == "first-task" and self.scheduler == "asha":
            raise ValueError("search.scheduler: asha needs several tasks, and select: first-task trains one")
        return self
