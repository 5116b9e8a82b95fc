"""What a worker writes: each fact once, and of a failure enough to find the line of one's own code."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import logs
from orchestrator.errors import SequenceFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.events import Event
from orchestrator.store.failure_notes import noted_failures
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import read_view
from orchestrator.training.parallel import Parallel
from orchestrator.training.record import SequenceRecord
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.failing import HOOKS, hook_frame, user_line, write_plugin

MakeSequence = Callable[..., SequencePlan]
modules = itertools.count()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The plug-in in a folder of its own on the path: its dotted name, and its file."""
    name = f"users_own_{next(modules)}"
    path = write_plugin(tmp_path / "users", name)
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, name)
    return f"{name}.Broken", path


def method(plugin_name: str, hook: str, **more: Any) -> dict[str, Any]:
    """Fine-tuning with the plug-in."""
    return {"name": "mine", "tuning": "full", "plugins": [{"name": plugin_name, "hook": hook, **more}]}


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_that_raises_is_found(hook: str, plugin: tuple[str, Path], sequence_of: MakeSequence) -> None:
    name, path = plugin
    sequence = sequence_of(methods=[method(name, hook)])
    with pytest.raises(SequenceFailed) as raised:
        # a state is loaded by the one who goes on from it
        run_sequence(sequence, until=1)
        run_sequence(sequence)
    reason = f"KeyError: 'a bracket [red] of {hook}'"
    assert str(raised.value) == reason
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert (failed.reason, failed.method, failed.worker, failed.transient) == (reason, "mine", 0, False)
    assert failed.task in sequence.tasks
    if hook not in ("before_task", "after_task", "state_dict", "load_state_dict"):
        assert (failed.task, failed.step) == (sequence.tasks[0], 1)
    assert failed.log == str(logs.worker_log(sequence.out, sequence.id, 0))
    for text in (failed.traceback, Path(failed.log).read_text()):
        assert user_line(path) in text
        assert hook_frame(path, hook) in text
        assert reason in text


def test_a_failure_that_may_pass_is_noted_but_ends_nothing(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of()

    def full_disk(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.training.sequence.train_task", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run_sequence(sequence)
    view = read_view(sequence.out, sequence.id)
    assert (view.status, view.failed) == ("running", None)
    (noted,) = noted_failures(logs.sequence_logs(sequence.out, sequence.id), since=0)
    assert noted.transient
    assert noted.task == sequence.tasks[0]
    assert "No space left on device" in Path(str(noted.log)).read_text()


def test_a_fact_that_the_journal_has_is_not_recorded_again(sequence_of: MakeSequence) -> None:
    sequence = sequence_of()
    reported: list[Event] = []
    # the second one is that of a later run, which knows the first one's facts from the journal alone
    for _ in range(2):
        record = SequenceRecord(sequence, Parallel(), reported.append)
        for _ in range(2):
            record.task_started(0, steps=2)
            record.add(events.Step(task_id=0, step=1, loss=1.0, lr=0.1, grad_norm=1.0, tokens_per_s=1.0))
    assert [event.name for event in reported] == ["task_started", "step"]
    in_journal = list(Tail(journal_folder(sequence.out, sequence.id)).new_events())
    assert [event.name for event in in_journal] == ["task_started", "step"]


def test_a_worker_that_does_not_write_records_nothing(sequence_of: MakeSequence) -> None:
    sequence = sequence_of()
    reported: list[Event] = []
    second_worker = Parallel(rank=1, count=2)
    SequenceRecord(sequence, second_worker, reported.append).task_started(0, steps=2)
    assert reported == []
    assert list(Tail(journal_folder(sequence.out, sequence.id)).new_events()) == []
