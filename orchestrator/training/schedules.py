"""Learning rates over the steps of a task and over the tasks of a stream."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.optim.lr_scheduler import LambdaLR

from orchestrator.config.training import TrainingConfig, outer_factor

# A share of steps that should be whole may be a little off either way: 0.1 * 30 is 3.0000000000000004
_ROUNDING = 1e-9


class Phases(NamedTuple):
    """The last step (counted from 1) of the warm-up, of the cooldown and of the constant rate."""

    warm: int
    cool: int
    constant: int


def phases(training: TrainingConfig, steps: int) -> Phases:
    """The phases of `schedule: infinite`, in whole steps. A task that is too short for all phases has no annealing."""
    warm = math.ceil(training.warmup_share * steps - _ROUNDING)
    cool = math.ceil(training.infinite.cooldown * steps - _ROUNDING)
    constant = math.floor(training.infinite.anneal * steps + _ROUNDING)
    # At least one step comes before annealing, so that there is a state from which to go on
    constant = max(1, cool, constant)
    return Phases(warm, cool, min(steps, constant))


def last_step_before_annealing(training: TrainingConfig, steps: int) -> int | None:
    """The step after which the state is kept that the next task goes on from; None where tasks are not annealed."""
    if training.schedule == "infinite":
        return phases(training, steps).constant
    return None


def infinite(training: TrainingConfig, step: int, steps: int, task_id: int) -> float:
    """The rate in a step (counted from 1), as a share of lr (arXiv 2503.02844).

    With the phases' ends w, c, d and the shares k (constant) and f (final), in the first task: n/w up to w; then
    k + (1 - k)/2 (1 + cos(pi (n - w)/(c - w))) up to c; then k up to d; then k (f/k)^((n - d)/(N - d)). Later tasks begin
    with the constant rate and have the last two phases alone.

    The next task goes on from the weights and the optimizer's state at step d; the annealed weights are scored and reported.
    We depart from the paper in that each task is annealed (there one branch is, where a model is wanted), and in that tasks
    are known to end, so that all phases are shares of a task's steps.
    """
    shares = training.infinite
    warm, cool, constant = phases(training, steps)
    if step > constant:
        annealed = (step - constant) / max(1, steps - constant)
        return shares.constant * (shares.final / shares.constant) ** annealed
    if task_id > 0 or step > cool:
        return shares.constant
    if step <= warm:
        return step / warm
    angle = math.pi * (step - warm) / (cool - warm)
    return shares.constant + (1 - shares.constant) / 2 * (1 + math.cos(angle))


def make_schedule(
    optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int, task_id: int = 0, tasks: int = 1
) -> LambdaLR:
    """The learning rate over one task's steps: warm-up, then constant, linear to zero, or half a cosine to zero; or
    `infinite`. All times the task's `outer_factor`.

    The first three begin anew with every task, so `cosine` is the repeated cosine of continual pre-training.
    """
    num_warm = math.ceil(training.warmup_share * steps)
    outer = outer_factor(training, task_id, tasks)

    def factor(step: int) -> float:
        # The scheduler counts steps from 0
        if training.schedule == "infinite":
            return outer * infinite(training, step + 1, steps, task_id)
        if step < num_warm:
            return outer * (step + 1) / (num_warm + 1)
        remaining = (steps - step) / max(1, steps - num_warm)
        if training.schedule == "linear":
            return outer * remaining
        if training.schedule == "cosine":
            return outer * ((1 - math.cos(math.pi * remaining)) / 2)
        return outer * 1.0

    return LambdaLR(optimizer, factor)


def skip_steps(schedule: LambdaLR, steps: int) -> None:
    """Have a new schedule stand where it stands after so many steps."""
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": steps, "_step_count": steps + 1})
    for group, lr, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = lr * factor(steps)
    schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]
