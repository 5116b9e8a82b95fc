"""The plan of a sequence: plain data, by which any process opens the same stream with the same seals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.access_log import TestAccessLog
from streams import SealedSplit


def log_of(sequence: SequencePlan) -> list[tuple[str, str, str, str]]:
    """What the test-access log says of tasks that were read after planning."""
    entries = TestAccessLog(Path(sequence.out)).entries()
    return [
        (entry["experiment"], entry["by"], entry["task"], entry["why"]) for entry in entries if entry["by"] != "plan"
    ]


def test_each_reading_of_a_test_split_is_noted_with_its_reason(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    assert sequence.split == "test"
    stream = sequence.open_stream("a look")
    assert tuple(task.name for task in stream.tasks) == sequence.tasks
    stream.tasks[0].read("train")
    assert log_of(sequence) == []
    stream.tasks[1].read("test")
    sequence.open_stream().tasks[0].read("test")
    assert log_of(sequence) == [
        ("small", sequence.id, sequence.tasks[1], "a look"),
        ("small", sequence.id, sequence.tasks[0], "scores"),
    ]


def test_tuning_opens_the_stream_with_its_test_split_sealed(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2}).model_copy(update={"split": "dev"})
    (task, _) = sequence.open_stream().tasks
    assert task.read("dev")
    with pytest.raises(SealedSplit):
        task.read("test")
    assert log_of(sequence) == []


def test_it_reaches_a_worker_as_json_and_does_not_change(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(methods=["ft+migu"])
    again = SequencePlan.model_validate_json(sequence.model_dump_json())
    assert again == sequence
    assert SequencePlan.model_validate(sequence.model_dump(mode="json")) == sequence
    assert len(again.keys) == len(again.score_keys) == len(again.tasks) + 1
    assert {len(row) for row in again.score_keys} == {len(again.tasks)}
    with pytest.raises(ValidationError, match="frozen"):
        again.seed = 8
