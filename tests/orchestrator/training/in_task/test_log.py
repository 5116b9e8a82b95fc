"""The log of a task: what was recorded, and which time was training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.store.events import Step
from orchestrator.store.records.event import Event
from orchestrator.training.in_task import log


def step(number: int) -> Step:
    return Step(task_id=0, step=number, loss=1.0, lr=0.1, grad_norm=1.0, tokens_per_s=9.0)


def test_time_apart_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def look(number: int) -> None:
        now[0] += 7.0

    made = log.TaskLog(lambda event: None, look, began=50.0)
    now[0] += 2.0
    made.let_look(1)
    with made.apart():
        now[0] += 100.0
    now[0] += 1.0
    assert made.seconds == 3.0
    other = log.TaskLog(lambda event: None, began=now[0])
    other.go_on_from(made.history({}))
    now[0] += 4.0
    assert other.seconds == 7.0, "with those of the process before"


def test_a_log_goes_on_where_another_was() -> None:
    first = log.TaskLog(lambda event: None)
    for number in (1, 2):
        first.add(step(number), num_tokens=10, num_flops=1000)
    told: list[Event] = []
    second = log.TaskLog(told.append)
    second.go_on_from(first.history({}))
    second.add(step(3), num_tokens=5, num_flops=500)
    history = second.history({"d": 1.0})
    assert history["usage"] == {"steps": 3, "tokens": 25, "flops": 2500}
    assert [entry["step"] for entry in history["steps"]] == [1, 2, 3]
    assert history["diagnostics"] == {"d": 1.0}
    # a journal that has lost the first two hears of them again
    assert [event.step for event in told if isinstance(event, Step)] == [1, 2, 3]
