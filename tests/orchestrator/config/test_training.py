"""Training settings: what they may be, the phases of a schedule, budgets, and the rate over tasks."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.loading import load_config
from orchestrator.config.training import TrainingConfig, outer_factor
from tests.orchestrator.config.refusal import refused


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.schedule=infinit", ["training.schedule", "'infinite'", "'infinit'"]),
        ("training.infinite={cooldown: 0.9}", ["training.infinite: cooldown = 0.9 must be less than anneal = 0.8"]),
        ("training.infinite={final: 0.5}", ["training.infinite: final = 0.5 must not be greater than constant = 0.1"]),
        ("training.infinite={aneal: 0.5}", ["training.infinite", "unknown key 'aneal'", "Did you mean 'anneal'?"]),
        ("training={schedule: infinite, warmup: 0.2}", ["training.warmup: 0.2", "training.infinite.cooldown = 0.15"]),
        ("training.outer=linear", ["training.outer", "'rsqrt'", "'linear'"]),
        ("training.budget={}", ["training.budget: give exactly one of steps, tokens, flops"]),
        ("training.budget={steps: 1, flops: 1}", ["training.budget: give exactly one of steps, tokens, flops"]),
        ("training.budget={steps: 0}", ["training.budget.steps", "greater than or equal to 1", "found 0"]),
        ("training.budget={seconds: 5}", ["training.budget", "unknown key 'seconds'"]),
        (
            "training={budget: {steps: 5}, epochs_per_task: {reviews: 2}}",
            ["training.epochs_per_task", "training.budget"],
        ),
        ("training.lr=-1", ["training.lr", "greater than 0"]),
        ("training.lr=fast", ["training.lr", "'fast'"]),
    ],
)
def test_training_that_cannot_be_is_refused(override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message, message


def test_a_budget_counts_whole_tokens_however_yaml_reads_the_number() -> None:
    for written in (1_000_000, 1e6, "1e6"):
        budget = TrainingConfig.model_validate({"budget": {"tokens": written}}).budget
        assert budget
        assert (budget.unit, budget.tokens) == ("tokens", 1_000_000)
        assert isinstance(budget.tokens, int), "it names checkpoints, so 1e6 and 1000000 must be one number"


def test_the_epochs_of_a_task_are_its_own_or_those_of_all() -> None:
    training = TrainingConfig(epochs=3, epochs_per_task={"WiC": 2})
    assert (training.epochs_of("WiC"), training.epochs_of("CB")) == (2, 3)


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("rsqrt", [1, 0.707106781187, 0.577350269190, 0.5]),
        ("cosine", [1, 0.853553390593, 0.5, 0.146446609407]),
    ],
)
def test_the_factor_over_tasks_by_hand(outer: str, expected: list[float]) -> None:
    training = TrainingConfig.model_validate({"outer": outer})
    # not nearly: it is a part of the keys of checkpoints
    assert [outer_factor(training, task_id, 4) for task_id in range(4)] == expected


def test_the_warm_up_that_is_not_given_is_the_schedules_own() -> None:
    def share(**settings: Any) -> float:
        return TrainingConfig.model_validate(settings).warmup_share

    assert share() == share(schedule="cosine") == 0.0
    assert share(schedule="infinite") == 0.05
    assert share(schedule="infinite", warmup=0.0) == 0.0
    assert share(schedule="infinite", infinite={"cooldown": 0.02}) == 0.02, "no later than the end of the cooldown"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.lr=1e6", ["training.lr", "less than or equal to 1000"]),
        ("training.lrs={head: 1e6}", ["training.lrs.head", "less than or equal to 1000"]),
        ("training.epochs=1000000000", ["training.epochs", "less than or equal to 1000000"]),
        ("training.epochs_per_task={news: 1000000000}", ["epochs_per_task", "less than or equal to 1000000"]),
        ("training.budget={steps: 10000000000}", ["training.budget", "less than or equal to 1000000000"]),
        ("training.warmup=1.5", ["training.warmup", "less than 1"]),
        ("training.weight_decay=1e9", ["training.weight_decay", "less than or equal to 1000"]),
        ("training.clip=1e300", ["training.clip", "numbers up to 1e+30"]),
        ("methods=[{preset: ft, training: {lr: 1e6}}]", ["methods.0.training", "less than or equal to 1000"]),
        ("methods=[{tuning: {name: lora, alpha: 1e300}}]", ["lora.alpha", "numbers up to 1e+30"]),
        ("streams.scenario={name: subset, fraction: 1e300}", ["scenario"]),
    ],
)
def test_what_nobody_means_is_refused_and_the_bound_is_said(override: str, parts: list[str]) -> None:
    line = refused(override)
    for part in parts:
        assert part in line


def test_what_somebody_may_mean_is_taken() -> None:
    load_config(None, ["training.lr=100", "training.epochs=100000", "training.weight_decay=10"])
