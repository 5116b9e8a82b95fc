"""What a user may ask for of the training of each task: the optimizer, its learning rate over steps and tasks, the budget."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.section import Section

# Far beyond any experiment: what is more was meant otherwise, and would run for years or end in numbers that are none
MOST_RATE = 1_000.0
MOST_EPOCHS = 1_000_000
MOST_STEPS = 1_000_000_000
MOST_BATCH = 10_000_000

# The released code's share of warm-up with an infinite schedule (arXiv 2503.02844)
RELEASED_WARMUP = 0.05


class InfiniteConfig(Section):
    """The phases of `schedule: infinite`, after the warm-up. Defaults: the released code's (arXiv 2503.02844)."""

    cooldown: float = Field(
        0.15, ge=0, lt=1, description="share of the first task's steps at which the rate is constant"
    )
    anneal: float = Field(0.8, gt=0, lt=1, description="share of every task's steps at which annealing begins")
    constant: float = Field(0.1, gt=0, le=1, description="the constant rate, as a share of lr")
    final: float = Field(0.01, gt=0, le=1, description="the rate at the end of annealing, as a share of lr")

    @model_validator(mode="after")
    def _in_order(self) -> InfiniteConfig:
        if self.cooldown >= self.anneal:
            raise ValueError(f"cooldown = {self.cooldown:g} must be less than anneal = {self.anneal:g}")
        if self.final > self.constant:
            raise ValueError(f"final = {self.final:g} must not be greater than constant = {self.constant:g}")
        return self


def _whole(value: Any) -> Any:
    """YAML reads 1e6 as text, and 1.0e+6 as a real number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        # left as it is, for pydantic to refuse with the key's path
        return value
    if number.is_integer():
        return int(number)
    return value


class Budget(Section):
    """What each task may take: exactly one of these, the same for all methods (see `orchestrator.training.cost`)."""

    steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    tokens: Annotated[int, BeforeValidator(_whole)] | None = Field(
        None,
        ge=1,
        le=10**18,
        description="real tokens that the model reads, a method's own passes included; at least one step",
    )
    flops: float | None = Field(None, gt=0, le=1e30, allow_inf_nan=False, description="of the model; at least one step")

    @model_validator(mode="after")
    def _one(self) -> Budget:
        # two units would race each other, and which of them ended a task would depend on the method
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of steps, tokens, flops")
        return self

    @property
    def unit(self) -> str:
        """What is counted: steps, tokens or flops."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def amount(self) -> float:
        """How many of them."""
        return float(self.model_dump()[self.unit])


class TrainingConfig(Section):
    """How each task is trained. The global batch is the unit; micro-batches and accumulation follow from it."""

    lr: float | None = Field(
        None,
        gt=0,
        le=MOST_RATE,
        allow_inf_nan=False,
        description="none: each tuning method's own default (`Card.default_lr`)",
    )
    lrs: dict[str, Annotated[float, Field(gt=0, le=MOST_RATE, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="rates of parameter groups: `head`, or a pattern of parameter names"
    )
    epochs: int = Field(1, ge=1, le=MOST_EPOCHS, description="not used where there is a budget")
    epochs_per_task: dict[str, Annotated[int, Field(ge=1, le=MOST_EPOCHS)]] = Field(
        default_factory=dict, description="exceptions, by task name"
    )
    budget: Budget | None = Field(None, description="steps, tokens or flops of each task, instead of epochs")
    global_batch: int = Field(32, ge=1, le=MOST_BATCH, description="examples a step, over all workers")
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="examples a forward pass; by default global_batch / workers; auto: the most that fit into memory",
    )
    checkpoint_activations: bool = Field(
        False, description="compute a block's inner values again for its backward pass instead of keeping them"
    )
    deterministic: bool = Field(
        False, description="take operations alone that give the same bits each time on a GPU too, though slower"
    )
    compile: bool = Field(False, description="compile the transformer's blocks (torch.compile), which takes a minute")
    weight_decay: float = Field(0.01, ge=0, le=1_000, allow_inf_nan=False)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip: float | None = Field(1.0, gt=0, allow_inf_nan=False, description="gradient norm at most; null: no clipping")
    schedule: Literal["constant", "linear", "cosine", "infinite"] = Field(
        "constant", description="of the rate over a task's steps; see orchestrator.training.schedules"
    )
    warmup: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of a task's steps in which the rate rises from 0; null: none; infinite: of the first task's, "
        "null: 0.05, as released",
    )
    infinite: InfiniteConfig = InfiniteConfig()
    outer: Literal["constant", "rsqrt", "cosine"] = Field(
        "constant", description="a factor on the rate that falls from task to task"
    )

    @property
    def resolved_lr(self) -> float:
        """The learning rate of a method whose settings are complete (see `RunConfig.training_for`)."""
        assert self.lr is not None, "resolve_training fills it in"
        return self.lr

    @property
    def warmup_share(self) -> float:
        """The share of steps in which the rate rises, whether it was given or is the schedule's own."""
        if self.warmup is not None:
            return self.warmup
        if self.schedule != "infinite":
            return 0.0
        # a cooldown that was set to end earlier leaves room for no more
        return min(RELEASED_WARMUP, self.infinite.cooldown)

    def epochs_of(self, task: str) -> int:
        """Epochs of a task, where there is no budget."""
        return self.epochs_per_task.get(task, self.epochs)


def check_training(training: TrainingConfig) -> None:
    """Raises ValueError where settings of a method's training, all put together, contradict each other."""
    # settings that are each allowed: which of them meet is known only when a method's own lie on top of the shared ones
    infinite = training.infinite
    if training.schedule == "infinite" and training.warmup_share > infinite.cooldown:
        raise ValueError(
            f"training.warmup: {training.warmup_share:g} is greater than training.infinite.cooldown = {infinite.cooldown:g}, "
            "the share of the steps in which the rate rises and cools down"
        )
    if training.budget and training.epochs_per_task:
        raise ValueError(
            "training.epochs_per_task: training.budget takes the place of epochs; give one of them (epochs_per_task: {})"
        )


def outer_factor(training: TrainingConfig, task_id: int, tasks: int) -> float:
    """g(t) on the rates of task t = 1..T: 1; 1/sqrt(t); or (1 + cos(pi (t - 1)/T))/2. The first is always 1.

    Rounded, because it names checkpoints: no machine's last bit of a cosine may matter.
    """
    if training.outer == "rsqrt":
        return round(1 / math.sqrt(task_id + 1), 12)
    if training.outer == "cosine":
        return round((1 + math.cos(math.pi * task_id / tasks)) / 2, 12)
    return 1.0
