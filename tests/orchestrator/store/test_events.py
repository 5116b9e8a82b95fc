"""Events: what is written is read again, and what is none is refused in one line."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest

from orchestrator.store import events
from orchestrator.store.events import EVENTS, CheckpointSaved, parse_event
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import (
    SearchEvent,
    TrialEvent,
)
from tests.orchestrator.store.examples import checkpoint, step

# a value of each type that a field may have
VALUES: dict[Any, Any] = {
    str: "word",
    int: 3,
    float: 0.25,
    Literal["higher", "lower"]: "lower",
    dict[str, float]: {"acc": 0.5},
    bool: True,
    float | None: None,
    str | None: None,
    list[str]: ["one", "two"],
    list[float]: [0.5],
    tuple[str, ...]: ("one", "two"),
    list[dict[str, Any]]: [{"key": [1, None]}],
    dict[str, Any]: {"key": {"inner": 1}},
    dict[str, str]: {"torch": "2.0"},
    dict[str, float]: {"pm": 0.5},
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
    assert len(kinds) == 24
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


def test_a_start_and_a_failure_of_older_journals_have_no_identity() -> None:
    started = {"event": "sequence_started", "time": 1, "id": "s", "tasks": ["a"], "sequence": {}, "data": [], "workers": 1,
               "device": "cpu", "versions": {}, "git_commit": None, "machine": "m"}  # fmt: skip
    old = parse_event(started)
    assert isinstance(old, events.SequenceStarted)
    assert (old.run, old.attempt) == ("", "")
    failed = parse_event({"event": "sequence_failed", "time": 1, "reason": "why"})
    assert isinstance(failed, events.SequenceFailed)
    assert failed.attempt == ""
