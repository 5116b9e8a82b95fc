"""Sequences that are trained in one pass become what each becomes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.errors import SequenceFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved, Event, SystemSample
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import read_view
from orchestrator.training import step
from orchestrator.training.fused.sequences import run_fused
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.training.helpers import ANNEALED, equal, stored

Make = Callable[..., SequencePlan]
# each differs from the others in what is its own: rate, decay, clipping, betas, schedule, an outer schedule
TRAININGS: tuple[dict[str, Any], ...] = (
    {"lr": 1e-3},
    {"lr": 5e-3, "weight_decay": 0.3, "clip": 0.05},
    {"lr": 2e-3, "clip": None, "betas": (0.5, 0.9), "schedule": "cosine", "warmup": 0.3, "outer": "rsqrt"},
)
# ten steps a task on two tasks
STREAM = {"first": 2, "max_train": 80, "max_test": 4}
SHORT: dict[str, Any] = {"model": "tiny-bert", "stream": {**STREAM, "max_train": 24}}


def trials(make: Make, out: str, trainings: Sequence[dict[str, Any]] = TRAININGS, **changes: Any) -> list[SequencePlan]:
    """A sequence for each training, all in one store."""
    made = []
    for training in trainings:
        common = {"methods": ["lora"], "stream": STREAM, **changes}
        made.append(make(out=out, training={"global_batch": 8, **training}, **common))
    return made


def assert_same_tensors(one: Any, other: Any) -> None:
    """Nested tensors by name are equal to 1e-6."""
    if isinstance(one, Tensor):
        assert bool(one.isfinite().all())
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-6)
        return
    assert one.keys() == other.keys()
    for name in one:
        assert_same_tensors(one[name], other[name])


def assert_same_journal(one: SequencePlan, other: SequencePlan) -> None:
    """The same facts, in the same order; numbers of steps equal to 1e-6, and scores exactly."""
    rows = _rows(one)
    other_rows = _rows(other)
    assert [type(row) for row in rows] == [type(row) for row in other_rows]
    for row, other_row in zip(rows, other_rows, strict=True):
        for name in ("task_id", "step", "lr", "score", "tasks_seen", "steps", "key", "reused"):
            assert getattr(row, name, None) == getattr(other_row, name, None)
        for name in ("loss", "grad_norm"):
            assert getattr(row, name, 0.0) == pytest.approx(getattr(other_row, name, 0.0), abs=2e-6)


def _rows(sequence: SequencePlan) -> list[Event]:
    """The journal, with what is recorded when a disk has done its work behind the rest."""
    rows = []
    checkpoints = []
    for event in Tail(journal_folder(sequence.out, sequence.id)).new_events():
        if isinstance(event, CheckpointSaved):
            checkpoints.append(event)
        elif not isinstance(event, SystemSample):
            rows.append(event)
    return [*rows, *checkpoints]


def assert_same(alone: SequencePlan, fused: SequencePlan) -> None:
    """The same states and the same journal."""
    assert alone.keys == fused.keys
    for tasks_seen in range(1, len(alone.tasks) + 1):
        state = stored(alone, tasks_seen)
        other = stored(fused, tasks_seen)
        assert_same_tensors(state.weights, other.weights)
        assert (state.resume_state is None) == (other.resume_state is None)
        if state.resume_state is not None and other.resume_state is not None:
            assert_same_tensors(state.resume_state.weights, other.resume_state.weights)
            assert_same_tensors(state.resume_state.optimizer_state, other.resume_state.optimizer_state)
        usage = state.history["usage"]
        assert usage == other.history["usage"]
    assert_same_journal(alone, fused)


@pytest.mark.parametrize(
    ("model", "method", "micro_batch"),
    [
        ("tiny-t5", "lora", None),
        ("tiny-llama", "lora", None),
        ("tiny-bert", "lora", 4),
        ("tiny-bert", "inclora", None),
        ("tiny-roberta", "olora", None),
    ],
)
def test_each_becomes_what_it_becomes_alone(
    model: str, method: str, micro_batch: int | None, sequence_of: Make, float64: None
) -> None:
    """With the adapters' dropout; in twenty steps over two tasks, once of two micro-batches each."""
    micro = [{**training, "micro_batch": micro_batch} for training in TRAININGS]
    alone = trials(sequence_of, "alone", micro, model=model, methods=[method])
    fused = trials(sequence_of, "fused", micro, model=model, methods=[method])
    for sequence in alone:
        run_sequence(sequence)
    views = run_fused(fused)
    assert [view.id for view in views] == [sequence.id for sequence in fused]
    assert {view.status for view in views} == {"finished"}
    moved = []
    for one, other in zip(alone, fused, strict=True):
        assert_same(one, other)
        moved.append(torch.cat([weight.flatten() for weight in stored(other, 2).weights.values()]))
    # rates and all the rest did make three different models
    assert float((moved[0] - moved[1]).abs().max()) > 1e-3
    assert float((moved[0] - moved[2]).abs().max()) > 1e-3


def test_a_loss_that_is_no_number_ends_its_own_sequence_alone(
    sequence_of: Make, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = step._check_finite

    def infinite_in_the_second(value: float, quantity: str, learner: Learner, position: int, number: int) -> None:
        # no rate that is allowed makes one in float64
        is_wild = learner.sequence.training.lr == 1000 and number == 2
        check(math.inf if is_wild else value, quantity, learner, position, number)

    monkeypatch.setattr(step, "_check_finite", infinite_in_the_second)
    trainings = ({"lr": 1e-3}, {"lr": 1000, "clip": None}, {"lr": 5e-3})
    alone = trials(sequence_of, "alone", trainings, **SHORT)
    fused = trials(sequence_of, "fused", trainings, **SHORT)
    run_sequence(alone[0])
    run_sequence(alone[2])
    with pytest.raises(SequenceFailed) as failure:
        run_sequence(alone[1])
    views = run_fused(fused)
    assert [view.status for view in views] == ["finished", "failed", "finished"]
    assert views[1].failure == str(failure.value)
    assert "step 2" in views[1].failure
    assert_same(alone[0], fused[0])
    assert_same(alone[2], fused[2])


def test_who_found_a_state_waits_for_the_others(sequence_of: Make, float64: None) -> None:
    """The first one has its first task already: the second task is trained by both together, and gives the same."""
    alone = trials(sequence_of, "alone", TRAININGS[:2], **SHORT)
    fused = trials(sequence_of, "fused", TRAININGS[:2], **SHORT)
    for sequence in alone:
        run_sequence(sequence)
    run_sequence(fused[0], until=1)
    run_fused(fused)
    for one, other in zip(alone, fused, strict=True):
        for tasks_seen in (1, 2):
            assert_same_tensors(stored(one, tasks_seen).weights, stored(other, tasks_seen).weights)
    assert_same_journal(alone[1], fused[1])


def test_annealed_states_are_each_ones_own(sequence_of: Make, float64: None) -> None:
    trainings = ({"lr": 1e-3, **ANNEALED}, {"lr": 5e-3, **ANNEALED})
    alone = trials(sequence_of, "alone", trainings, model="tiny-bert")
    fused = trials(sequence_of, "fused", trainings, model="tiny-bert")
    for sequence in alone:
        run_sequence(sequence, evaluate=False)
    run_fused(fused, evaluate=False)
    for one, other in zip(alone, fused, strict=True):
        assert stored(one, 1).resume_state is not None
        assert_same(one, other)


def test_it_ends_after_as_many_tasks_as_are_asked_for(sequence_of: Make) -> None:
    sequences = trials(sequence_of, "out", TRAININGS[:2], **SHORT)
    run_fused(sequences, evaluate=False, until=1)
    store = Store(Path(sequences[0].out))
    for sequence in sequences:
        assert [store.has(key) for key in sequence.keys[1:]] == [True, False]
    run_fused(sequences, evaluate=False)
    for sequence in sequences:
        assert store.has(sequence.keys[2])


def test_what_cannot_be_trained_in_one_pass_is_refused_with_the_reason(sequence_of: Make) -> None:
    with pytest.raises(ValueError, match="cannot be trained in one pass: a single sequence"):
        run_fused(trials(sequence_of, "out", TRAININGS[:1]))


def test_another_group_that_shares_a_state_is_waited_for(sequence_of: Make) -> None:
    sequences = trials(sequence_of, "out", TRAININGS[:2], **SHORT)
    store = Store(Path(sequences[0].out))
    with ThreadPoolExecutor(1) as thread:
        with store.lock(f"fused-{sequences[1].keys[1]}", timeout=0) as is_mine:
            assert is_mine
            running = thread.submit(run_fused, sequences, False)
            with pytest.raises(TimeoutError):
                running.result(timeout=0.5)
            assert not store.has(sequences[0].keys[1])
        running.result(timeout=60)
    assert store.has(sequences[1].keys[2])


def test_scores_amid_training_are_those_of_each_alone_and_disturb_no_other(sequence_of: Make) -> None:
    during = {"during": {"every": 2, "examples": 4}}
    fused = trials(sequence_of, "fused", TRAININGS[:2], evaluation=during, **SHORT)
    run_fused(fused, evaluate=False)
    silent = trials(sequence_of, "silent", TRAININGS[:2], **SHORT)
    run_fused(silent, evaluate=False)
    for alone, sequence, unseen in zip(
        trials(sequence_of, "alone", TRAININGS[:2], evaluation=during, **SHORT), fused, silent, strict=True
    ):
        run_sequence(alone, evaluate=False)
        found = []
        for plan in (alone, sequence):
            points = read_view(plan.out, plan.id).points.values()
            found.append([(point.task_id, point.step, point.scored_id, point.score) for point in points])
        assert found[0] == found[1]
        assert len(found[0]) == 4 * (1 + 2)
        assert equal(dict(stored(sequence, 2).weights), dict(stored(unseen, 2).weights))
