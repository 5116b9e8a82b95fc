"""One sequence in one process: nothing trained twice, nothing lost."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from orchestrator.errors import NonFiniteLoss, SequenceFailed
from orchestrator.evaluation.columns import is_complete
from orchestrator.evaluation.scores import compute_score, missing_scores
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved, Step
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.view import read_view
from orchestrator.training.learner import Learner
from orchestrator.training.scoring import score_state
from orchestrator.training.sequence import run_sequence
from orchestrator.training.step import train_step
from tests.conftest import FAMILIES
from tests.orchestrator.states import make_scores
from tests.orchestrator.training.helpers import ANNEALED, EWC, equal, folder_with, stored, trained


@pytest.mark.parametrize("model", [*FAMILIES, "tiny-roberta"])
def test_a_whole_sequence(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    view = run_sequence(sequence_of(model=model))
    full = view.matrix()
    assert full.shape == (6, 5)
    assert not np.isnan(full).any()
    assert view.status == "finished"
    options = view.matrix("score_options")
    if model in ("tiny-bert", "tiny-roberta"):
        assert (options >= full).all(), "fewer labels compete, so no score can be lower"
    else:
        assert np.isnan(options).all()


def test_the_same_command_again_trains_and_scores_nothing(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of()
    assert len(trained(sequence)) == 5
    assert is_complete(sequence, Store(Path(sequence.out)))
    before = list(Tail(journal_folder(sequence.out, sequence.id)).new_events())
    assert trained(sequence) == []
    after = list(Tail(journal_folder(sequence.out, sequence.id)).new_events())
    assert [e.name for e in after[len(before) :]] == ["sequence_started", "sequence_finished"]


@pytest.mark.parametrize("model", FAMILIES)
def test_adding_a_task_trains_only_that_task(
    model: str, sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    short = sequence_of(model=model, stream=folder_with(tmp_path, ["first", "second"]))
    longer = sequence_of(model=model, stream=folder_with(tmp_path, ["first", "second", "third"]))
    at_once = sequence_of("elsewhere", model=model, stream=folder_with(tmp_path, ["first", "second", "third"]))
    assert trained(short) == ["first", "second"]
    assert trained(longer) == ["third"]
    assert trained(at_once) == ["first", "second", "third"]
    ends = [Store(Path(s.out)).load(s.keys[3]).weights for s in (longer, at_once)]
    for name, w in ends[0].items():
        torch.testing.assert_close(w, ends[1][name], rtol=1e-6, atol=1e-7)


def test_methods_share_the_tasks_that_they_train_alike(sequence_of: Callable[..., SequencePlan]) -> None:
    plain, migu, other = (sequence_of(methods=[m]) for m in ("ft", "ft+migu", {"tuning": "full", "plugins": [
        {"name": "migu", "ratio": 0.5}]}))  # fmt: skip
    masked_first = sequence_of(methods=[{"tuning": "full", "plugins": [{"name": "migu", "mask_first_task": True}]}])
    assert plain.keys[:2] == migu.keys[:2] == other.keys[:2]
    assert len({s.keys[2] for s in (plain, migu, other)}) == 3
    assert masked_first.keys[1] != plain.keys[1]
    assert trained(plain) == ["reviews", "headlines", "requests", "feelings", "riddles"]
    assert trained(migu) == ["headlines", "requests", "feelings", "riddles"]
    reused = read_view(migu.out, migu.id).by_task[0]
    assert len(reused.steps) == 3, "the log of the shared task is there too"


def test_a_non_finite_loss_stops_the_sequence_and_keeps_what_was_done(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(training={"lr": 1e-3})
    wild = sequence_of(methods=[{"tuning": "full", "training": {"lr": 1000, "clip": None, "weight_decay": 1000}}])
    with pytest.raises(NonFiniteLoss, match=r"the (loss|gradient's norm) is (nan|inf) in task 'reviews', step \d"):
        run_sequence(wild)
    view = read_view(wild.out, wild.id)
    assert view.status == "failed"
    assert "task 'reviews', step" in view.failure
    assert (0, 4) in view.scores
    assert not any(Store(Path(wild.out)).has(key) for key in wild.keys[1:])
    assert len(trained(sequence)) == 5


def test_any_error_of_a_sequence_is_noted_with_its_reason(sequence_of: Callable[..., SequencePlan]) -> None:
    """Which parameters train, and so whether a pattern of rates matches one, is known when the task begins."""
    sequence = sequence_of(training={"lrs": {"no_such_layer*": 0.1}})
    with pytest.raises(SequenceFailed, match="no_such_layer"):
        run_sequence(sequence)
    view = read_view(sequence.out, sequence.id)
    assert view.status == "failed"
    assert "no_such_layer" in view.failure


def test_data_that_changed_since_the_plan_is_refused(sequence_of: Callable[..., SequencePlan], tmp_path: Path) -> None:
    """Otherwise what is trained on the new data would be stored, and found again, as if it were of the old."""
    sequence = sequence_of(stream=folder_with(tmp_path, ["first", "second"]))
    file = tmp_path / "data" / "TC" / "first" / "train.json"
    file.write_text(file.read_text().replace("first text 3", "another text"))
    with pytest.raises(SequenceFailed, match="has changed since"):
        run_sequence(sequence)
    assert not Store(Path(sequence.out)).has(sequence.keys[1])


def test_weights_that_are_not_finite_are_never_stored(sequence_of: Callable[..., SequencePlan]) -> None:
    """One step a task: the loss is taken before the step that spoils the weights."""
    wild = {"tuning": "full", "training": {"lr": 1000, "clip": None, "global_batch": 24, "weight_decay": 1000}}
    sequence = sequence_of(methods=[wild])
    with pytest.raises(NonFiniteLoss, match=r"(in|after) task '(reviews|headlines)'"):
        run_sequence(sequence, evaluate=False)
    store = Store(Path(sequence.out))
    for key in sequence.keys[1:]:
        assert not store.has(key) or all(torch.isfinite(w).all() for w in store.load(key).weights.values())


def test_a_stream_without_a_dev_split_trains(sequence_of: Callable[..., SequencePlan]) -> None:
    view = run_sequence(sequence_of(stream={"dev_fraction": 0}), evaluate=False)
    assert view.status == "incomplete", "trained, and not scored"
    assert view.start
    assert view.start.data[0]["sizes"]["dev"] == 0


def test_bf16_runs(sequence_of: Callable[..., SequencePlan]) -> None:
    low = sequence_of(methods=["lora+migu"], precision="bf16")
    assert low.keys[0] != sequence_of(methods=["lora+migu"]).keys[0]
    view = run_sequence(low)
    assert view.status == "finished"
    assert not np.isnan(view.matrix()).any()


def test_a_corrupt_checkpoint_is_set_aside_and_made_again(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of()
    trained(sequence)
    store = Store(Path(sequence.out))
    before = store.load(sequence.keys[5]).weights
    shutil.rmtree(store.path(sequence.keys[5]))
    (store.path(sequence.keys[4]) / "weights.safetensors").write_bytes(b"broken")
    events: list[Event] = []
    run_sequence(sequence, events.append)
    assert "checkpoint_corrupt" in [e.name for e in events]
    after = store.load(sequence.keys[5]).weights
    assert all(torch.equal(w, after[n]) for n, w in before.items())
    assert store.is_sound(sequence.keys[4])
    assert [p for p in (store.root / "checkpoints").iterdir() if "corrupt" in p.name]


CASES = [
    ("ft", "tiny-t5"),
    (EWC, "tiny-t5"),
    ("lora", "tiny-t5"),
    ("ft", "tiny-bert"),
    ("coso", "tiny-t5"),
    ("moelora", "tiny-t5"),
]


@pytest.mark.parametrize(("method", "model"), CASES, ids=lambda case: str(case)[:20])
def test_stopping_and_resuming_equals_going_on(
    method: Any, model: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    few = {"model": model, "methods": [method], "stream": {"first": 3, "max_test": 4}, "training": ANNEALED}
    whole, stopped = sequence_of("whole", **few), sequence_of("stopped", **few)
    run_sequence(whole, evaluate=False)

    class Stop(BaseException):
        """As a signal would come."""

    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.task_id, event.step) in ((1, 3), (2, 2)):
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            run_sequence(stopped, stop, evaluate=False)
    run_sequence(stopped)  # scoring every state in between changes nothing
    for row in (1, 2, 3):
        a, b = stored(whole, row), stored(stopped, row)
        assert a.resume_state
        assert b.resume_state
        assert equal(a.weights, b.weights)
        assert equal(a.resume_state.weights, b.resume_state.weights)
        assert equal(a.resume_state.optimizer_state, b.resume_state.optimizer_state)
        assert a.resume_state.optimizer_state
        assert a.weights.keys() == a.resume_state.weights.keys()
        assert not equal(a.weights, a.resume_state.weights), "nothing was annealed"


def test_adding_a_task_with_new_labels_trains_only_that_task(
    sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    """The head of the longer stream has more rows, and so have the optimizer's moments."""
    changes = {"model": "tiny-bert", "training": ANNEALED}
    short = sequence_of(stream=folder_with(tmp_path, ["first", "second"]), **changes)
    longer = sequence_of(stream=folder_with(tmp_path, ["first", "second", "third"]), **changes)
    at_once = sequence_of("elsewhere", stream=folder_with(tmp_path, ["first", "second", "third"]), **changes)
    assert trained(short) == ["first", "second"]
    assert trained(longer) == ["third"]
    assert trained(at_once) == ["first", "second", "third"]
    ends = [stored(s, 3) for s in (longer, at_once)]
    assert ends[0].resume_state
    assert ends[1].resume_state
    assert len(ends[0].resume_state.optimizer_state["classifier.weight"]["exp_avg"]) == 6
    for name, w in ends[0].weights.items():
        torch.testing.assert_close(w, ends[1].weights[name], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(
            ends[0].resume_state.optimizer_state[name]["exp_avg"],
            ends[1].resume_state.optimizer_state[name]["exp_avg"],
            rtol=1e-5,
            atol=1e-7,
        )


def test_a_checkpoint_that_breaks_at_once_is_made_again(sequence_of: Callable[..., SequencePlan]) -> None:
    """The model is then past the first task, and has to begin anew."""
    whole, broken = (sequence_of(out, stream={"first": 2}, training=ANNEALED) for out in ("whole", "broken"))
    run_sequence(whole, evaluate=False)
    store, seen = Store(Path(broken.out)), []

    def spoil(event: Event) -> None:
        seen.append(event.name)
        if isinstance(event, CheckpointSaved) and event.task_id == 0:
            (store.path(broken.keys[1]) / "resume.safetensors").write_bytes(b"broken")

    run_sequence(broken, spoil)
    assert "checkpoint_corrupt" in seen
    for row in (1, 2):
        assert equal(stored(whole, row).weights, stored(broken, row).weights)


def test_a_failure_says_in_which_task_and_step_it_happened(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback too names the line that raised."""

    def fail_in_the_fifth(*arguments: Any) -> Any:
        task_position, step = arguments[4:6]
        if (task_position, step) == (1, 2):
            raise KeyError("a plug-in's own")
        return train_step(*arguments)

    monkeypatch.setattr("orchestrator.training.task.train_step", fail_in_the_fifth)
    sequence, recorded = sequence_of(stream={"first": 3}), []
    with pytest.raises(SequenceFailed, match="KeyError"):
        run_sequence(sequence, recorded.append)
    (failure,) = [event for event in recorded if isinstance(event, events.SequenceFailed)]
    assert (failure.task, failure.step, failure.worker, failure.method) == (sequence.tasks[1], 2, 0, "ft")
    assert "fail_in_the_fifth" in failure.traceback


def test_a_failure_while_scoring_names_the_scored_task(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: Any, plan: Any, stream: Any, store: Any, tasks_seen: int, task_id: int) -> None:
        if (tasks_seen, task_id) == (1, 2):
            raise KeyError("a scorer's own")
        compute_score(model, plan, stream, store, tasks_seen, task_id)

    monkeypatch.setattr("orchestrator.training.scoring.compute_column", fail)
    sequence, recorded = sequence_of(stream={"first": 3}), []
    with pytest.raises(SequenceFailed, match="KeyError"):
        run_sequence(sequence, recorded.append)
    (failure,) = [event for event in recorded if isinstance(event, events.SequenceFailed)]
    assert (failure.task, failure.step) == (sequence.tasks[2], None)


def test_several_states_in_a_row_that_are_gone_are_made_again(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four states the last two are gone and the one before them is corrupt: the loop goes back to the first."""
    sequence = sequence_of(stream={"first": 4})
    trained(sequence)
    store = Store(Path(sequence.out))
    before = store.load(sequence.keys[4]).weights
    for tasks_seen in (3, 4):
        shutil.rmtree(store.path(sequence.keys[tasks_seen]))
    (store.path(sequence.keys[2]) / "weights.safetensors").write_bytes(b"broken")
    recorded: list[Event] = []
    locked: list[str] = []
    lock = Store.lock

    def count_locks(self: Store, name: str, timeout: float) -> Any:
        locked.append(name)
        # a loop that tries the wrong state comes here again and again, for ever
        assert len(locked) < 20, locked
        return lock(self, name, timeout)

    monkeypatch.setattr(Store, "lock", count_locks)
    # with a journal of its own, so that no event is known already
    run_sequence(sequence.model_copy(update={"id": "again"}), recorded.append, evaluate=False)
    assert [event.key for event in recorded if isinstance(event, events.CheckpointCorrupt)] == [sequence.keys[2]]
    saved = [event for event in recorded if isinstance(event, CheckpointSaved)]
    # the second was reported as found before it was needed, and so before anybody saw that it is corrupt
    assert [event.reused for event in saved] == [True, True, False, False]
    assert equal(dict(store.load(sequence.keys[4]).weights), dict(before))
    assert all(store.is_sound(key) for key in sequence.keys[1:])


def test_a_failure_to_score_names_the_task_that_was_scored(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})

    def fail_on_the_second(*arguments: Any) -> None:
        if arguments[-1] == 1:
            raise KeyError("x")

    monkeypatch.setattr("orchestrator.training.scoring.compute_column", fail_on_the_second)
    with pytest.raises(KeyError) as caught:
        score_state(sequence, 0)
    assert caught.value.__notes__ == ["while the state after 0 tasks was scored on task 'headlines'"]


def test_a_finished_sequence_leaves_no_model_behind(sequence_of: Callable[..., SequencePlan]) -> None:
    def models() -> int:
        gc.collect()
        return sum(isinstance(found, PreTrainedModel) for found in gc.get_objects())

    before = models()
    gc.disable()
    try:
        run_sequence(sequence_of(methods=["ewc"], stream={"first": 1}), evaluate=False)
        found = sum(isinstance(found, PreTrainedModel) for found in gc.get_objects())
    finally:
        gc.enable()
    assert found == before


def test_a_state_that_is_gone_when_it_is_to_be_scored_is_an_error_unless_its_scores_are_there(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sequence may share it, and have it scored and pruned while this one's scoring begins."""
    sequence = sequence_of(stream={"first": 2})
    run_sequence(sequence, evaluate=False)
    store = Store(Path(sequence.out))
    store.prune(sequence.keys[2])
    with pytest.raises(ValueError, match=f"checkpoint .*{sequence.keys[2]} is missing or changed"):
        score_state(sequence, 2)
    begin = Learner.__init__

    def meanwhile(learner: Learner, *arguments: Any) -> None:
        begin(learner, *arguments)
        make_scores(sequence, 2)

    monkeypatch.setattr(Learner, "__init__", meanwhile)
    score_state(sequence, 2)
    assert not missing_scores(sequence, 2, store)


def test_tasks_that_come_again_are_trained_again_and_scored_once(sequence_of: Callable[..., SequencePlan]) -> None:
    scenario = {"name": "recurrence", "positions": 6, "every": 3, "seed": 2}
    stream = {"first": 5, "scenario": [{"name": "order", "tasks": ["reviews", "headlines"]}, scenario]}
    sequence = sequence_of(stream=stream)
    # six positions, of which the first five are taken
    assert trained(sequence) == list(sequence.tasks)
    view = read_view(sequence.out, sequence.id)
    matrix = view.matrix()
    assert matrix.shape == (6, 5)
    assert not np.isnan(matrix).any()
    assert view.status == "finished"
    # the columns of one task are alike in every state
    firsts = [name.partition("@")[0] for name in sequence.tasks]
    assert len(set(firsts)) == 2
    for column, first in enumerate(firsts):
        np.testing.assert_array_equal(matrix[:, column], matrix[:, firsts.index(first)])
    assert len(list((Path(sequence.out) / "scores").glob("*.json"))) == 6 * 2
    # trained again: the weights go on changing
    states = [stored(sequence, tasks_seen).weights for tasks_seen in (1, 2)]
    assert sequence.tasks[1] == "reviews@2"
    assert not equal(*states)
