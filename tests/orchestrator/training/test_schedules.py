"""Learning rates by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from orchestrator.config.training import TrainingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.schedules import make_schedule, phases, skip_steps
from orchestrator.training.sequence import run_sequence
from tests.steps import steps_of


def rates(training: TrainingConfig, steps: int, task_id: int, tasks: int = 5) -> list[float]:
    """What the optimizer is given in every step of a task."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=training.lr)
    schedule = make_schedule(optimizer, training, steps, task_id, tasks)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_the_four_phases_by_hand() -> None:
    """20 steps: warm-up until 2, cooldown until 6, constant until 16; cosines of 45, 90 and 135 degrees, fourth roots of 0.1."""
    training = TrainingConfig.model_validate(
        {"lr": 1.0, "schedule": "infinite", "warmup": 0.1, "infinite": {"cooldown": 0.3}}
    )
    cooling = [0.868198051534, 0.55, 0.231801948466, 0.1]
    annealing = [0.0562341325190, 0.0316227766017, 0.0177827941004, 0.01]
    assert rates(training, 20, 0) == pytest.approx([0.5, 1.0, *cooling, *[0.1] * 10, *annealing], rel=1e-10)
    assert rates(training, 20, 1) == pytest.approx([*[0.1] * 16, *annealing], rel=1e-10)
    own = training.model_copy(
        update={
            "lr": 0.02,
            "infinite": training.infinite.model_copy(update={"anneal": 0.5, "constant": 0.5, "final": 0.125}),
        }
    )
    assert rates(own, 4, 3) == pytest.approx([0.01, 0.01, 0.005, 0.0025], rel=1e-10)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (3, (1, 1, 2)), (5, (1, 1, 4)), (100, (5, 15, 80))]
)
def test_phases_are_whole_steps(steps: int, expected: tuple[int, int, int]) -> None:
    """A single step is not annealed: otherwise nothing would be learnt from it. The shares are the released code's."""
    assert phases(TrainingConfig(schedule="infinite"), steps) == expected


def test_a_group_of_parameters_has_its_own_height() -> None:
    training = TrainingConfig.model_validate({"lr": 1.0, "schedule": "infinite"})
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 3.0)]
    schedule = make_schedule(torch.optim.AdamW(groups), training, 10, task_id=1, tasks=2)
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("rsqrt", [1, 0.707106781187, 0.577350269190, 0.5]),
        ("cosine", [1, 0.853553390593, 0.5, 0.146446609407]),
    ],
)
def test_the_rate_over_tasks(outer: str, expected: list[float], sequence_of: Callable[..., SequencePlan]) -> None:
    training = TrainingConfig.model_validate({"lr": 2.0, "outer": outer, "schedule": "linear"})
    assert rates(training, 2, 3, 4) == pytest.approx([2.0 * expected[3], expected[3]], abs=1e-11)
    sequence = sequence_of(training={"outer": outer}, stream={"first": 4, "max_train": 8})
    run_sequence(sequence, evaluate=False)
    first_steps = [steps_of(sequence.out, sequence.id, task_id)[0] for task_id in range(4)]
    assert [step.lr for step in first_steps] == pytest.approx([1e-3 * g for g in expected], rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("constant", 0.5, [1 / 3, 2 / 3, 1, 1]),
        ("linear", 0.5, [1 / 3, 2 / 3, 1, 0.5]),
        ("cosine", 0.0, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_schedules(
    schedule: str, warmup: float, expected: list[float], sequence_of: Callable[..., SequencePlan]
) -> None:
    training = sequence_of(training={"schedule": schedule, "warmup": warmup, "lr": 0.5}).training
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=training.lr)
    scheduler = make_schedule(optimizer, training, steps=4)
    rates = []
    for _ in range(4):
        rates.append(scheduler.get_last_lr()[0] / 0.5)
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "infinite"])
@pytest.mark.parametrize("done", [1, 4, 9])
def test_skipped_steps_are_as_if_made(schedule: Any, done: int) -> None:
    training = TrainingConfig(schedule=schedule, warmup=0.1, lr=0.5)

    def made() -> LambdaLR:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 0.25)]
        optimizer = torch.optim.SGD(groups)
        # torch warns of a schedule that steps before its optimizer
        optimizer.step()
        return make_schedule(optimizer, training, steps=12)

    walked = made()
    for _ in range(done):
        walked.step()
    skipped = made()
    skip_steps(skipped, done)
    for _ in range(2):
        assert skipped.get_last_lr() == walked.get_last_lr()
        of_groups = [[group["lr"] for group in each.optimizer.param_groups] for each in (walked, skipped)]
        assert of_groups[0] == of_groups[1] == walked.get_last_lr()
        skipped.step()
        walked.step()
