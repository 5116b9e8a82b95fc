"""Events: what is written is read again, and what is none is refused in one line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from orchestrator.store import events
from orchestrator.store.events import (
    EVENTS,
    CheckpointSaved,
    Event,
    RungDecided,
    SearchEvent,
    SearchFinished,
    Step,
    TrialEvent,
    TrialSuggested,
    parse_event,
)
from orchestrator.store.identities import ParentRun
from tests.orchestrator.store.examples import checkpoint, step

# a value of each type that a field may have
VALUES: dict[Any, Any] = {
    str: "word",
    int: 3,
    float: 0.25,
    bool: True,
    float | None: None,
    str | None: None,
    list[str]: ["one", "two"],
    list[float]: [0.5],
    tuple[str, ...]: ("one", "two"),
    list[dict[str, Any]]: [{"key": [1, None]}],
    dict[str, Any]: {"key": {"inner": 1}},
    dict[str, str]: {"torch": "2.0"},
    dict[str, int | float]: {"steps": 3, "flops": 0.5},
}


def example_of(kind: type[Event]) -> dict[str, Any]:
    """Values for the fields that an event must have."""
    return {name: VALUES[field.annotation] for name, field in kind.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_comes_back_from_json_as_it_was(name: str) -> None:
    event = EVENTS[name].model_validate({**example_of(EVENTS[name]), "time": 7})
    written = event.to_json()
    assert (written["event"], written["time"]) == (name, 7)
    assert parse_event(json.loads(json.dumps(written))) == event


def test_every_kind_that_can_be_recorded_is_listed_under_its_name() -> None:
    kinds = []
    for kind in vars(events).values():
        if isinstance(kind, type) and issubclass(kind, Event) and kind not in (Event, SearchEvent, TrialEvent):
            kinds.append(kind)
    assert len(kinds) == 20
    assert {kind.name: kind for kind in kinds} == EVENTS


def test_a_diagnostic_that_is_no_number_stays_so() -> None:
    event = checkpoint(0).model_copy(update={"diagnostics": {"share": math.nan}})
    again = parse_event(json.loads(json.dumps(event.to_json())))
    assert isinstance(again, CheckpointSaved)
    assert math.isnan(again.diagnostics["share"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event": "stepp"}, "unknown event 'stepp'"),
        ({"loss": "high"}, "event 'step': loss: Input should be a valid number, unable to parse string as a number"),
        ({"more": 1, "lesss": 2}, "event 'step': more: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_event_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_event(step(0, 1).to_json() | changes)
    assert str(caught.value) == message


def test_a_journal_of_before_a_field_was_added_is_read() -> None:
    old = checkpoint(0).to_json()
    del old["versions"]
    event = parse_event(old)
    assert isinstance(event, CheckpointSaved)
    assert event.versions == {}


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


def test_events_of_a_trial_hang_below_the_search() -> None:
    search = ParentRun("search:mine", "mine: search")
    assert SearchFinished(summary={}).parent_runs("mine") == (search,)
    drawn = TrialSuggested(definition="0123456789", method="ft", number=7, values={}, notes={})
    assert drawn.trial == "ft-007"
    assert drawn.parent_runs("mine") == (search, ParentRun("search:mine/ft-007-01234567", "mine-ft-007"))
    rung = RungDecided(definition="0123456789", method="ft", number=7, tasks=2, score=1.0, goes_on=True)
    assert rung.parent_runs("mine") == drawn.parent_runs("mine")
