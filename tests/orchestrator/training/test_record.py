"""What a worker writes: each fact once, and of a failure enough to find the line of one's own code."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import logs
from orchestrator.errors import SequenceFailed
from orchestrator.evaluation.scores import compute_score
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.failure_notes import noted_failures
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.view import read_view
from orchestrator.training.parallel import Parallel
from orchestrator.training.record import SequenceRecord
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import Position
from tests.orchestrator.failing import HOOKS, hook_frame, user_line, write_plugin
from tests.orchestrator.training.helpers import equal, stored, trained

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
    if hook not in ("before_task", "measure", "after_task", "state_dict", "load_state_dict"):
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
    (noted,) = noted_failures(logs.sequence_logs(sequence.out, sequence.id))[""]
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
        record.journal.flush()
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


def test_a_failure_that_cannot_be_noted_is_told_all_the_same(sequence_of: Callable[..., SequencePlan]) -> None:
    """As on a disk that is full, or in a folder that can only be read: else its own error would come in the first one's place."""
    sequence = sequence_of()
    Path(sequence.out).mkdir(parents=True, exist_ok=True)
    (Path(sequence.out) / "logs").write_text("in the way")
    record = SequenceRecord(sequence, Parallel(), None)
    failed = record.note_failure(OSError(28, "No space left on device"), Position(task="reviews"), transient=True)
    assert failed.reason == "OSError: [Errno 28] No space left on device" and failed.task == "reviews"


class Disk:
    """A disk that keeps a state waiting until it is let go; then it takes it, or is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, key: str, is_full: bool = False) -> None:
        self.goes_on = threading.Event()
        write = Store.write

        def slowly(store: Store, written_key: str, *what: Any) -> int:
            if written_key == key:
                assert self.goes_on.wait(30), "the task before is waited for"
                if is_full:
                    raise OSError(28, "No space left on device")
            return write(store, written_key, *what)

        monkeypatch.setattr(Store, "write", slowly)


def test_the_next_task_is_trained_while_a_state_is_written(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, beside = (sequence_of(out, stream={"first": 3}) for out in ("at once", "beside"))
    run_sequence(at_once)
    disk = Disk(monkeypatch, beside.keys[1])
    store = Store(Path(beside.out))
    told: list[tuple[str, int]] = []

    def report(event: Event) -> None:
        if isinstance(event, events.Step) and (event.task_id, event.step) == (1, 2):
            assert not store.has(beside.keys[1]), "there is nothing half-written under its name"
            with store.lock(beside.keys[1], timeout=0) as is_free:
                assert not is_free, "nobody else may make it meanwhile"
            disk.goes_on.set()
        if isinstance(event, events.CheckpointSaved):
            assert store.is_sound(event.key), "what is said to be there is there"
            told.append(("checkpoint", event.task_id))
        elif isinstance(event, events.TaskStarted):
            told.append(("start", event.task_id))

    run_sequence(beside, report, evaluate=False)
    assert told.index(("start", 1)) < told.index(("checkpoint", 0)) < told.index(("checkpoint", 1))
    assert told[-1] == ("checkpoint", 2), "the sequence ends with its last state on the disk"
    with store.lock(beside.keys[1], timeout=0) as is_free:
        assert is_free
    for tasks_seen in (1, 2, 3):
        assert equal(stored(at_once, tasks_seen).weights, stored(beside, tasks_seen).weights)


def test_a_state_is_scored_from_memory_while_it_is_written(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    disk = Disk(monkeypatch, sequence.keys[1])
    scored_before = []

    def score(model: Any, plan: Any, stream: Any, store: Store, tasks_seen: int, task_id: int) -> None:
        scored_before.append((tasks_seen, task_id, store.has(sequence.keys[1])))
        compute_score(model, plan, stream, store, tasks_seen, task_id)
        if (tasks_seen, task_id) == (1, 1):
            disk.goes_on.set()

    monkeypatch.setattr("orchestrator.training.scoring.compute_column", score)
    told: list[Event] = []
    run_sequence(sequence, told.append)
    assert (1, 1, False) in scored_before
    names = [(event.name, getattr(event, "tasks_seen", None)) for event in told]
    assert names.index(("checkpoint", None)) < names.index(("score", 1)), "the journal has the state before its scores"


@pytest.mark.parametrize("noticed", ["in the next task", "at the end"])
def test_a_full_disk_ends_the_sequence_and_names_the_task_that_was_written(
    noticed: str, sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    failing = 0 if noticed == "in the next task" else 1
    disk = Disk(monkeypatch, sequence.keys[failing + 1], is_full=True)
    told: list[Event] = []

    def report(event: Event) -> None:
        told.append(event)
        # the last step that is reported before anyone looks for the state
        if isinstance(event, events.Step) and (event.task_id, event.step) == (1, 2):
            disk.goes_on.set()

    with pytest.raises(OSError, match="No space left"):
        run_sequence(sequence, report, evaluate=False)
    (failure,) = noted_failures(logs.sequence_logs(sequence.out, sequence.id))[""]
    assert (failure.task, failure.step, failure.transient) == (sequence.tasks[failing], None, True)
    assert [event.task_id for event in told if isinstance(event, events.CheckpointSaved)] == list(range(failing))
    assert list((Path(sequence.out) / "checkpoints").glob(".*")) == []
    monkeypatch.undo()
    assert trained(sequence) == list(sequence.tasks[failing:])


def test_a_state_that_was_being_written_when_the_next_task_failed_is_kept(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    disk = Disk(monkeypatch, sequence.keys[1])

    def fail(event: Event) -> None:
        if isinstance(event, events.Step) and event.task_id == 1:
            threading.Timer(0.2, disk.goes_on.set).start()
            raise KeyError("of the second task")

    with pytest.raises(SequenceFailed, match="of the second task"):
        run_sequence(sequence, fail, evaluate=False)
    view = read_view(sequence.out, sequence.id)
    assert view.by_task[0].checkpoint is not None
    assert view.failed is not None and view.failed.task == sequence.tasks[1]
    assert Store(Path(sequence.out)).is_sound(sequence.keys[1])


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_half_written(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = (sequence_of(out, stream={"first": 2}) for out in ("whole", "killed"))
    run_sequence(whole)

    def die(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        # all files are there by then but the one that vouches for them
        patch.setattr("orchestrator.store.checkpoints._write_manifest", die)
        child = multiprocessing.get_context("fork").Process(target=run_sequence, args=(killed,))
        child.start()
        child.join()
    assert child.exitcode == -signal.SIGKILL
    (unfinished,) = (Path(killed.out) / "checkpoints").iterdir()
    assert (unfinished / "weights.safetensors").exists() and unfinished.name.startswith(".")
    assert trained(killed) == list(killed.tasks)
    assert not unfinished.exists()
    for tasks_seen in (1, 2):
        assert equal(stored(whole, tasks_seen).weights, stored(killed, tasks_seen).weights)
