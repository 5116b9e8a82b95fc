"""Training one task: what is recorded, and what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.store.events import Step
from orchestrator.store.records.event import Event
from orchestrator.training import task
from orchestrator.training.in_task import log
from orchestrator.training.learner import Learner
from orchestrator.training.task import Position, train_task


def test_the_history_holds_the_recorded_steps_and_their_usage(learner_of: Callable[..., Learner]) -> None:
    recorded: list[Event] = []
    learner = learner_of(stream={"max_train": 24})
    state = train_task(learner, 0, recorded.append)
    assert [event.step for event in recorded if isinstance(event, Step)] == [1, 2, 3]
    assert state.history["steps"] == [event.to_json() for event in recorded]
    features = learner.features(0)
    num_tokens = sum(len(f["source"]) + len(f["target"]) for f in features)
    # 24 examples in three batches of 8: each is read once
    assert (state.history["usage"]["steps"], state.history["usage"]["tokens"]) == (3, num_tokens)


def test_a_method_that_trains_no_gradients_makes_no_steps(learner_of: Callable[..., Learner]) -> None:
    recorded: list[Event] = []
    state = train_task(learner_of(methods=["nmc"], model="tiny-bert"), 0, recorded.append)
    assert recorded == []
    assert state.history["usage"] == {"steps": 0, "tokens": 0, "flops": 0}
    assert state.method["0:nmc"]


def test_the_position_is_the_step_that_is_being_made(
    learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, where = learner_of(), Position(task="reviews")
    steps: list[int | None] = []

    def look(model: torch.nn.Module) -> None:
        steps.append(where.step)

    monkeypatch.setattr(learner.stack, "before_optimizer_step", look)
    train_task(learner, 0, lambda event: None, where)
    assert steps == [1, 2, 3]
    assert where == Position(task="reviews", step=None)


@pytest.mark.parametrize(("hook", "counts"), [("measure", False), ("after_task", True)])
def test_measuring_is_not_training(
    hook: str, counts: bool, learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of()
    now = [0.0]
    # a clock that only the hook moves
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now[0] + 1e-9 * next(ticks)))
    ticks = itertools.count()

    def take_long(*arguments: Any) -> None:
        now[0] += 100.0

    monkeypatch.setattr(learner.stack, hook, take_long)
    seconds = train_task(learner, 0, lambda event: None).history["seconds"]
    assert seconds == (100.0 if counts else 0.0)


@pytest.mark.parametrize(("training", "num_steps"), [({"epochs": 2}, 6), ({"budget": {"steps": 4}}, 4)])
def test_a_method_is_told_how_many_steps_the_task_has(
    training: dict[str, Any],
    num_steps: int,
    learner_of: Callable[..., Learner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = learner_of(stream={"max_train": 24}, training=training)
    told: list[int] = []
    for name in ("before_task", "before_step"):
        monkeypatch.setattr(learner.stack, name, lambda *args: told.append(learner.stack.tuning.context.num_steps()))
    state = train_task(learner, 0, lambda event: None)
    assert told == [num_steps] * (1 + num_steps)
    assert state.history["usage"]["steps"] == num_steps


def test_the_loop_calls_each_hook_in_its_turn(
    learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(training={"micro_batch": 4}, stream={"max_train": 8})
    called: list[str] = []
    hooks = (
        "before_task",
        "before_step",
        "on_batch",
        "after_forward",
        "add_gradients",
        "before_optimizer_step",
        "after_optimizer_step",
        "measure",
        "after_task",
        "state_dict",
    )

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(learner.stack, name)

        def call(*arguments: Any) -> Any:
            called.append(name)
            return original(*arguments)

        return call

    for name in hooks:
        monkeypatch.setattr(learner.stack, name, watched(name))
    train_task(learner, 0, lambda event: None)
    micro_batch = ["on_batch", "after_forward"]
    assert called == ["before_task", "before_step", *micro_batch, *micro_batch, *hooks[4:]]


@pytest.mark.parametrize(("device", "composes", "ahead"), [("cpu", False, 0), ("cuda", False, 1), ("cuda", True, 0)])
def test_on_a_gpu_a_step_is_made_while_the_one_before_is_computed(
    device: str, composes: bool, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def make(learner: Any, global_batch: list[int]) -> str:
        begun.append(global_batch[0])
        return f"step {global_batch[0]}"

    monkeypatch.setattr(task, "make_micro_batches", make)
    learner: Any = SimpleNamespace(
        parallel=SimpleNamespace(device=torch.device(device)), stack=SimpleNamespace(composes_batches=composes)
    )
    asked: list[int] = []

    def batches() -> Iterator[list[Any]]:
        for number in range(4):
            asked.append(number)
            yield [number]

    for number, (global_batch, made) in enumerate(task._made(learner, batches())):
        assert (global_batch, made) == ([number], f"step {number}")
        assert len(asked) == min(number + 1 + ahead, 4)
    assert begun == [0, 1, 2, 3]
