"""What all events have."""

from __future__ import annotations

import pytest

from orchestrator.store.events import Step
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import SearchFinished
from tests.orchestrator.store.examples import step


def test_two_records_of_one_fact_say_the_same_whenever_they_were_made() -> None:
    early = step(0, 1).model_copy(update={"time": 1})
    late = early.model_copy(update={"time": 2})
    assert early != late
    assert early.says_the_same_as(late)
    assert not early.says_the_same_as(late.model_copy(update={"loss": 2.0}))
    assert not Event(time=1).says_the_same_as(SearchFinished(summary={}, time=1))


def test_a_time_that_is_not_given_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5678)
    assert Step(task_id=0, step=1, loss=1, lr=1, grad_norm=1, tokens_per_s=1).time == 1_234_567
