"""A sequence that stops inside a task, and goes on there, is one that never stopped."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import Preempted
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import PointScored, ProgressSaved, Step
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.training.in_task import checkpoints
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.sharding import Strategy, current_workers
from tests.conftest import small_config
from tests.gloo import in_workers
from tests.orchestrator.training.helpers import ANNEALED, equal, stored

MakeSequence = Callable[..., SequencePlan]
EVERY_STEP = {"every_steps": 1, "every_seconds": None}
# eight steps a task: annealed ones are so from the seventh on
STREAM = {"first": 2, "max_train": 64, "max_test": 4}
CASES: dict[str, dict[str, Any]] = {
    "warm-up and cosine": {"training": {"lr": 1e-3, "global_batch": 8, "schedule": "cosine", "warmup": 0.3}},
    "two epochs": {"stream": {**STREAM, "max_train": 32}, "training": {"lr": 1e-3, "global_batch": 8, "epochs": 2}},
    "annealed": {"training": {"lr": 1e-3, "global_batch": 8, **ANNEALED}},
    "clusters, frozen": {
        "methods": [
            {
                "tuning": "full",
                "plugins": [{"name": "migu", "cluster": "comagnitude", "clusters": 8, "freeze_masked": True}],
            }
        ]
    },
    "bert": {"model": "tiny-bert", "methods": ["replay+migu"]},
    "adapters beside bf16": {"model": "tiny-llama", "methods": ["inclora"], "base": "bf16", "precision": "bf16"},
}


def steps_of(sequence: SequencePlan) -> list[Step]:
    return [event for event in events_of(sequence) if isinstance(event, Step)]


def events_of(sequence: SequencePlan) -> list[Event]:
    return list(Tail(journal_folder(sequence.out, sequence.id)).new_events())


def killed_in(sequence: SequencePlan, task_id: int, step: int) -> None:
    """Run a sequence in another process, which ends without a word when that step is recorded."""

    def report(event: Event) -> None:
        if isinstance(event, Step) and (event.task_id, event.step) == (task_id, step):
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(
        target=run_sequence, args=(sequence, report), kwargs={"evaluate": False}
    )
    process.start()
    process.join()
    assert process.exitcode == 9


def step_left(task_id: int, step: int) -> tuple[Callable[[Event], None], Callable[[], bool]]:
    """A report, and a wish to leave after that step of that task."""
    last = [(-1, 0)]

    def report(event: Event) -> None:
        if isinstance(event, Step):
            last[0] = (event.task_id, event.step)

    def leave() -> bool:
        before = (task_id, step - 1) if step > 1 else (task_id - 1, 8)
        return last[0] == before

    return report, leave


def same_states(one: SequencePlan, other: SequencePlan) -> None:
    for tasks_seen in range(1, len(one.tasks) + 1):
        first = stored(one, tasks_seen)
        second = stored(other, tasks_seen)
        assert equal(first.weights, second.weights)
        assert (first.resume_state is None) == (second.resume_state is None)
        if first.resume_state and second.resume_state:
            assert equal(first.resume_state.weights, second.resume_state.weights)
            assert equal(first.resume_state.optimizer_state, second.resume_state.optimizer_state)
        for name in ("usage", "diagnostics"):
            assert first.history[name] == second.history[name]


@pytest.mark.parametrize("case", CASES)
def test_a_process_that_dies_inside_a_task_loses_what_it_did_since_the_last_state(
    case: str, sequence_of: MakeSequence
) -> None:
    changes = {"stream": STREAM, "checkpoints": EVERY_STEP, **CASES[case]}
    whole = sequence_of("whole", **changes)
    run_sequence(whole, evaluate=False)
    killed = sequence_of("killed", **changes)
    killed_in(killed, 0, 4)
    # amid the annealing of the second task, where it is annealed
    killed_in(killed, 1, 8)
    run_sequence(killed, evaluate=False)
    same_states(whole, killed)
    losses = [(step.task_id, step.step, step.loss, step.lr) for step in steps_of(whole)]
    assert [(step.task_id, step.step, step.loss, step.lr) for step in steps_of(killed)] == losses
    times = {step.step: step.time for step in steps_of(killed) if step.task_id == 1}
    history = Store(Path(killed.out)).history(killed.keys[2])["steps"]
    repeated = [step["step"] for step in history if step["time"] != times[step["step"]]]
    assert set(repeated) <= {7, 8}, "the state after the last step but one may still have been on its way"


def test_states_inside_a_task_go_with_it(sequence_of: MakeSequence) -> None:
    sequence = sequence_of(stream=STREAM, checkpoints=EVERY_STEP)
    killed_in(sequence, 1, 5)
    kept = sorted((Path(sequence.out) / "in_task" / "checkpoints").iterdir())
    assert [folder.name.rpartition("-")[0] for folder in kept][-1] == sequence.keys[2]
    assert len(kept) <= 2 and not any(folder.name.startswith(sequence.keys[1]) for folder in kept)
    run_sequence(sequence, evaluate=False)
    assert list((Path(sequence.out) / "in_task" / "checkpoints").iterdir()) == []
    saved = [event for event in events_of(sequence) if isinstance(event, ProgressSaved)]
    assert {event.task_id for event in saved} == {0, 1}
    assert all(event.bytes > 0 for event in saved)
    # the last state of a task is its checkpoint
    assert 8 not in {event.step for event in saved}


def test_who_is_asked_to_leave_writes_and_comes_back(sequence_of: MakeSequence) -> None:
    changes = {"stream": STREAM, "methods": ["ft+migu"]}
    whole = sequence_of("whole", **changes)
    run_sequence(whole, evaluate=False)
    left = sequence_of("left", **changes)
    report, leave = step_left(1, 3)
    with pytest.raises(Preempted, match="after step 3"):
        run_sequence(left, report, evaluate=False, leave=leave)
    assert [(event.task_id, event.step) for event in events_of(left) if isinstance(event, ProgressSaved)] == [(1, 3)]
    run_sequence(left, evaluate=False)
    same_states(whole, left)
    times = [step.time for step in steps_of(left) if step.task_id == 1]
    assert [step["time"] for step in Store(Path(left.out)).history(left.keys[2])["steps"]] == times
    assert not [event for event in events_of(left) if event.name == "sequence_failed"]


def test_who_is_asked_between_two_tasks_leaves_there(sequence_of: MakeSequence) -> None:
    sequence = sequence_of(stream=STREAM)
    asked = []

    def leave() -> bool:
        asked.append(True)
        # before the first task, after each of its eight steps, and before the second
        return len(asked) == 10

    with pytest.raises(Preempted, match="between two tasks"):
        run_sequence(sequence, evaluate=False, leave=leave)
    assert Store(Path(sequence.out)).has(sequence.keys[1])
    assert {step.task_id for step in steps_of(sequence)} == {0}


def test_scores_amid_training_are_told_once(sequence_of: MakeSequence) -> None:
    changes = {"stream": STREAM, "evaluation": {"during": {"every": 2, "examples": 3}}, "checkpoints": EVERY_STEP}
    whole = sequence_of("whole", **changes)
    run_sequence(whole, evaluate=False)
    killed = sequence_of("killed", **changes)
    killed_in(killed, 1, 5)
    run_sequence(killed, evaluate=False)
    same_states(whole, killed)

    def points(sequence: SequencePlan) -> list[tuple[int, int, int, float]]:
        found = [event for event in events_of(sequence) if isinstance(event, PointScored)]
        return [(point.task_id, point.step, point.scored_id, point.score) for point in found]

    assert points(killed) == points(whole)
    store = Store(Path(killed.out))
    kept = [len((store.load_score(key) or {"points": ()})["points"]) for key in killed.points_keys]
    assert kept == [len([point for point in points(whole) if point[0] == task_id]) for task_id in (0, 1)]


def test_a_damaged_state_inside_a_task_is_no_loss_but_of_time(sequence_of: MakeSequence) -> None:
    changes = {"stream": STREAM, "checkpoints": EVERY_STEP}
    whole = sequence_of("whole", **changes)
    run_sequence(whole, evaluate=False)
    killed = sequence_of("killed", **changes)
    killed_in(killed, 1, 5)
    for folder in (Path(killed.out) / "in_task" / "checkpoints").iterdir():
        file = folder / "weights.safetensors"
        content = bytearray(file.read_bytes())
        content[-5] ^= 4
        file.write_bytes(content)
    run_sequence(killed, evaluate=False)
    same_states(whole, killed)


def test_a_state_of_another_format_is_not_gone_on_from(
    sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream=STREAM, checkpoints=EVERY_STEP)
    killed_in(sequence, 0, 5)
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    run_sequence(sequence, evaluate=False)
    first = next(step for step in steps_of(sequence) if step.task_id == 0)
    assert Store(Path(sequence.out)).history(sequence.keys[1])["steps"][0]["time"] > first.time


def test_when_a_state_is_written(sequence_of: MakeSequence, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    def made(parallel: Parallel | None = None, leave: bool = False, **config: Any) -> checkpoints.TaskCheckpoints:
        sequence = sequence_of(checkpoints=config)
        store = Store(Path(sequence.out))
        return checkpoints.TaskCheckpoints(
            sequence, 0, parallel or Parallel(), store, lambda event: None, lambda: leave, []
        )

    by_time = made(every_seconds=60)
    second = made(Parallel(1, 2), every_seconds=60, every_steps=4)
    usual = made()
    assert by_time.wishes(1) == (0, 0)
    now[0] += 60
    assert by_time.wishes(2) == (1, 0) and by_time.wishes(3) == (1, 0)
    # clocks differ, so that one worker's counts; steps are the same on all
    assert second.wishes(2) == (0, 0) and second.wishes(4) == (1, 0)
    now[0] += 539
    assert usual.wishes(2) == (0, 0)
    now[0] += 1
    assert usual.wishes(2) == (1, 0), "600 seconds by default"
    assert made(every_seconds=None).wishes(10**6) == (0, 0)
    assert made(Parallel(1, 2), leave=True).wishes(1) == (0, 1), "any worker may be asked to leave"


def test_a_low_rank_state_is_small(sequence_of: MakeSequence) -> None:
    """Frozen weights are as the next process finds them."""
    sequence = sequence_of(stream=STREAM, methods=["lora"], checkpoints=EVERY_STEP)
    killed_in(sequence, 0, 3)
    state = InTaskStates(Path(sequence.out), sequence.keys[1]).newest()
    assert state is not None
    assert state.weights and all("lora_" in name for name in state.weights)
    assert state.method["optimizer"].keys() == state.weights.keys()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("workers", [(2, 1), (1, 2), (2, 2)], ids=["shrinks", "grows", "stays"])
@pytest.mark.slow
def test_as_many_workers_as_there_are_go_on(strategy: Strategy, workers: tuple[int, int], tmp_path: Path) -> None:
    """The one that is asked is not the one that writes."""
    migu = {"tuning": "full", "plugins": [{"name": "migu", "mask_first_task": True}, {"name": "ewc", "strength": 1e3}]}
    changes: dict[str, Any] = {"stream": {**STREAM, "max_train": 32}, "training": {"micro_batch": 2}, "methods": [migu]}
    (whole,) = plan(small_config(tmp_path / "whole", **changes))
    run_sequence(whole, evaluate=False)
    (left,) = plan(small_config(tmp_path / "left", **changes))

    def first(rank: int) -> None:
        parallel = current_workers(torch.device("cpu"), strategy)
        asked: list[int] = []

        def leave() -> bool:
            asked.append(1)
            # of four steps a task: in the second task after the second step
            return rank == parallel.count - 1 and len(asked) == 8

        with pytest.raises(Preempted, match="after step 2"):
            run_sequence(left, evaluate=False, parallel=parallel, leave=leave)

    def second(rank: int) -> None:
        run_sequence(left, evaluate=False, parallel=current_workers(torch.device("cpu"), strategy))

    for number, (count, part) in enumerate(zip(workers, (first, second), strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        in_workers(part, count, folder)
    for tasks_seen in (1, 2):
        for name, weight in stored(whole, tasks_seen).weights.items():
            torch.testing.assert_close(weight, stored(left, tasks_seen).weights[name], rtol=1e-6, atol=1e-6)
    times = [step.time for step in steps_of(left) if step.task_id == 1]
    assert [step["time"] for step in Store(Path(left.out)).history(left.keys[2])["steps"]] == times


def test_what_differs_between_workers_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A plug-in that counts what its own worker alone has seen would go on with another's count."""
    (tmp_path / "own_counts.py").write_text(
        "from methods import Method\n"
        "class OwnCounts(Method):\n"
        "    '''Sums by worker.'''\n"
        "    seen = 0.0\n"
        "    def after_forward(self, model, batch, logits, loss):\n"
        "        self.seen += float(loss)\n"
        "        return loss\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    method = {"name": "counted", "tuning": "full", "plugins": ["own_counts.OwnCounts"]}
    changes = {"stream": {**STREAM, "max_train": 24}, "training": {"micro_batch": 2}, "checkpoints": EVERY_STEP}
    (sequence,) = plan(small_config(tmp_path / "two", methods=[method], **changes))

    def check(rank: int) -> None:
        run_sequence(sequence, evaluate=False, parallel=current_workers(torch.device("cpu"), "ddp"))

    in_workers(check, 2, tmp_path)
    assert not [event for event in events_of(sequence) if isinstance(event, ProgressSaved)]
    run_sequence(sequence.model_copy(update={"out": str(tmp_path / "one")}), evaluate=False)
    alone = sequence.model_copy(update={"out": str(tmp_path / "one")})
    assert [event for event in events_of(alone) if isinstance(event, ProgressSaved)]
