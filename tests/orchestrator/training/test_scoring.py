"""A scorer that keeps data and model between states: the same scores as ever, and each reading of a test split noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.evaluation.curves.during import Looks, drawn_examples
from orchestrator.evaluation.scores import ScoredModel, TaskScore, score_examples
from orchestrator.planning.planner import Planner
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import PointScored
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.predictions import load_predictions
from orchestrator.store.records.event import Event
from orchestrator.store.view import View, read_view
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.scoring import StateScorer, score_state
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.gloo import in_workers
from tests.orchestrator.training.helpers import ANNEALED, equal, stored

Loads = list[str]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """The sequences whose models are built from now on."""
    built: Loads = []
    load_initial = Learner.load_initial

    def counted(self: Learner) -> None:
        built.append(self.sequence.id)
        load_initial(self)

    monkeypatch.setattr(Learner, "load_initial", counted)
    return built


def forget_scores(sequence: SequencePlan) -> dict[str, Any]:
    """Take the scores and predictions of a sequence out of its store; gives them by key."""
    store = Store(Path(sequence.out))
    found = {}
    for key in sorted({key for keys in sequence.score_keys for key in keys}):
        record = store.load_score(key)
        assert record
        found[key] = (record | {"seconds": 0}, load_predictions(store.root, key))
    for file in (store.root / "scores").glob("*"):
        file.unlink()
    return found


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": ANNEALED},
        {"methods": [{"tuning": "lora"}]},
        {"methods": ["olora"]},
        {"methods": ["progprompt"]},
        {"methods": ["zero-shot"]},
        {"model": "tiny-bert", "methods": ["l2p"]},
        {"model": "tiny-bert", "methods": ["nmc"]},
    ],
    ids=str,
)
def test_a_model_that_is_kept_gives_the_scores_of_one_that_is_built_anew(
    changes: dict[str, Any], order: tuple[int, ...], sequence_of: Callable[..., SequencePlan], loads: Loads
) -> None:
    training = {"lr": 0.05, **changes.get("training", {})}
    sequence = sequence_of(stream={"first": 3}, **{**changes, "training": training})
    run_sequence(sequence, evaluate=False)
    for tasks_seen in range(4):
        score_state(sequence, tasks_seen)
    expected = forget_scores(sequence)
    loads.clear()
    scorer = StateScorer()
    for tasks_seen in order:
        scorer.score(sequence, tasks_seen)
    assert forget_scores(sequence) == expected
    trained = [tasks_seen for tasks_seen in order if sequence.method.reference is None]
    goes_back = sum(later < earlier for earlier, later in itertools.pairwise(trained))
    assert len(loads) == 1 + goes_back


def test_each_sequence_has_a_model_of_its_own_and_reads_of_one_stream_are_all_noted(
    sequence_of: Callable[..., SequencePlan], loads: Loads
) -> None:
    first = sequence_of(stream={"first": 2})
    second = sequence_of(stream={"first": 2}, seeds=[8])
    for sequence in (first, second):
        run_sequence(sequence, evaluate=False)
    # (who, task) of each line by now
    before = noted(first)
    loads.clear()
    scorer = StateScorer()
    for sequence, tasks_seen in ((first, 0), (first, 1), (second, 1), (second, 2), (first, 2)):
        scorer.score(sequence, tasks_seen)
    assert loads == [first.id, second.id, first.id]
    expected = []
    for sequence in (first, first, second, second, first):
        expected += [(sequence.id, task) for task in ("reviews", "headlines")]
    assert noted(first)[len(before) :] == expected
    scorer.score(first, 2)
    assert noted(first)[len(before) :] == expected, "nothing was missing, so nothing was read"


def noted(sequence: SequencePlan) -> list[tuple[str, str]]:
    """The readings in the test-access log that scores are the reason of."""
    entries = TestAccessLog(Path(sequence.out)).entries()
    return [(entry["by"], entry["task"]) for entry in entries if entry["why"] == "scores"]


def test_a_sealed_stream_that_is_kept_is_no_reading(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    for task in sequence.open_stream().tasks:
        task.read("test")
    assert len(noted(sequence)) == 2
    tuned = sequence.model_copy(update={"split": "dev"})
    tuned.note_test_reads(tuned.open_stream())
    assert len(noted(sequence)) == 2
    sequence.note_test_reads(sequence.open_stream())
    assert len(noted(sequence)) == 4


def test_after_an_error_nothing_is_kept(
    sequence_of: Callable[..., SequencePlan], loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    run_sequence(sequence, evaluate=False)
    loads.clear()
    scorer = StateScorer()

    def fail(*arguments: Any) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.training.scoring.compute_column", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            scorer.score(sequence, 0)
    scorer.score(sequence, 0)
    assert len(loads) == 2


DURING = {"during": {"every": 2, "examples": 6}}
# plug-ins that count in forward hooks, add penalties and choose data; and an adapter with dropout
DISTURBED: list[Any] = [
    {"name": "one", "tuning": "full", "plugins": [{"name": "migu", "ratio": 0.5, "mask_first_task": True}]},
    {"name": "two", "tuning": {"name": "lora", "dropout": 0.3}, "plugins": [{"name": "ewc", "strength": 1e3}]},
    {"name": "three", "tuning": "full", "plugins": [{"name": "replay", "fraction": 0.5}]},
]


def points_of(view: View) -> list[tuple[int, int, int, float, int]]:
    """What the points of a sequence say, without their times."""
    return [(p.task_id, p.step, p.scored_id, p.score, p.n) for p in view.points.values()]


@pytest.mark.parametrize("method", DISTURBED, ids=lambda method: str(method["name"]))
def test_scores_amid_training_change_nothing_of_it(method: Any, sequence_of: Callable[..., SequencePlan]) -> None:
    """Bit for bit, in a model with dropout, where each step accumulates two micro-batches."""
    changes: dict[str, Any] = {
        "methods": [method],
        "stream": {"first": 2, "max_train": 16},
        "training": {"micro_batch": 4, "schedule": "infinite", "warmup": 0.1},
        "overrides": {"dropout_rate": 0.2},
    }
    silent = sequence_of("silent", **changes)
    scored = sequence_of("scored", evaluation=DURING, **changes)
    assert (silent.id, silent.keys, silent.score_keys) == (scored.id, scored.keys, scored.score_keys)
    assert run_sequence(silent, evaluate=False).points == {}
    assert len(run_sequence(scored, evaluate=False).points) > 0
    for tasks_seen in (1, 2):
        one = stored(silent, tasks_seen)
        other = stored(scored, tasks_seen)
        assert one.resume_state and other.resume_state
        assert equal(dict(one.weights), dict(other.weights))
        assert equal(dict(one.resume_state.optimizer_state), dict(other.resume_state.optimizer_state))
        assert [step["loss"] for step in one.history["steps"]] == [step["loss"] for step in other.history["steps"]]


def test_points_are_those_of_the_present_weights(sequence_of: Callable[..., SequencePlan]) -> None:
    """The last step's weights are the task's state, and step 0's those of the state before it."""
    sequence = sequence_of(model="tiny-bert", stream={"first": 3}, evaluation=DURING, training={"lr": 1e-2})
    view = run_sequence(sequence)
    found = {(task_id, step, scored): score for task_id, step, scored, score, _ in points_of(view)}
    expected = set()
    for task_id in range(3):
        # three steps a task: 0, 1, 2 and the last
        expected |= {(task_id, step, scored) for step in (0, 1, 2, 3) for scored in range(task_id + 1)}
    assert set(found) == expected
    assert {n for *_, n in points_of(view)} == {6}
    tasks = sequence.open_stream().tasks
    for task_id, step, tasks_seen in ((0, 0, 0), (0, 3, 1), (1, 0, 1), (2, 0, 2), (2, 3, 3)):
        for scored in range(task_id + 1):
            predictions = load_predictions(Path(sequence.out), sequence.score_keys[tasks_seen][scored])
            assert predictions
            drawn = drawn_examples(tasks[scored].read("test"), 6, sequence.seed, tasks[scored].test_hash)
            rows = {example.row for example in drawn}
            right = sum(prediction.correct for prediction in predictions if prediction.row in rows)
            assert found[task_id, step, scored] == 100 * right / 6
    assert len(set(found.values())) > 2


def test_a_task_that_is_trained_again_or_found_has_the_same_points(sequence_of: Callable[..., SequencePlan]) -> None:
    few = {"model": "tiny-bert", "stream": {"first": 2}, "evaluation": DURING, "training": {"lr": 1e-2}}
    whole = points_of(run_sequence(sequence_of("whole", **few), evaluate=False))
    stopped = sequence_of("stopped", **few)

    class Stop(BaseException):
        """As a signal would come."""

    def stop(event: Event) -> None:
        if isinstance(event, PointScored) and (event.task_id, event.step, event.scored_id) == (1, 2, 0):
            raise Stop

    with pytest.raises(Stop):
        run_sequence(stopped, stop, evaluate=False)
    assert points_of(run_sequence(stopped, evaluate=False)) == whole
    lines = list(Tail(journal_folder(stopped.out, stopped.id)).new_events())
    assert len([event for event in lines if isinstance(event, PointScored)]) == len(whole), "each is told once"
    # another sequence finds the states, and with them their points
    other = stopped.model_copy(update={"id": "other"})
    assert points_of(run_sequence(other, evaluate=False)) == whole
    # one that asks for others finds none of them, and trains nothing again
    for during in ({"every": 1, "examples": 6}, {"every": 2, "examples": 5}):
        third = sequence_of("stopped", **{**few, "evaluation": {"during": during}})
        third = third.model_copy(update={"id": f"third {during}"})
        assert points_of(run_sequence(third, evaluate=False)) == []


def test_points_of_damaged_lines_are_told_by_the_store(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(model="tiny-bert", stream={"first": 2}, evaluation=DURING)
    whole = points_of(run_sequence(sequence))
    file = journal_folder(sequence.out, sequence.id) / "train.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"event": "point"', b'"event": "pint"', 3))
    assert len(points_of(read_view(sequence.out, sequence.id))) == len(whole) - 3
    assert sorted(points_of(recovered_view(sequence))) == sorted(whole)


def test_looks_are_no_training_time_and_in_the_log(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve looks that take a second each, by a clock that moves by a thousandth else."""
    clock = [0.0]

    def read() -> float:
        clock[0] += 0.001
        return clock[0]

    def slow(*arguments: Any, **options: Any) -> TaskScore:
        clock[0] += 1.0
        return score_examples(*arguments, **options)

    monkeypatch.setattr("orchestrator.evaluation.curves.during.score_examples", slow)
    for module in ("in_task.log", "scoring"):
        # in place of the module's own name: the clock of everyone else goes on
        monkeypatch.setattr(f"orchestrator.training.{module}.time", SimpleNamespace(monotonic=read))
    sequence = sequence_of(model="tiny-bert", stream={"first": 2}, evaluation=DURING)
    view = run_sequence(sequence, evaluate=False)
    assert len(view.points) == 4 + 8
    assert clock[0] > 12
    assert view.seconds < 0.1
    assert [point.seconds for point in view.points.values()] == pytest.approx([1.0] * 12, abs=0.01)
    logged = [e["task"] for e in TestAccessLog(Path(sequence.out)).entries() if e["why"] == "scores amid training"]
    assert logged == list(sequence.tasks)


def test_while_tuning_the_dev_split_is_looked_at(tmp_path: Path) -> None:
    """The test split is sealed, so that reading it would raise."""
    config = small_config(tmp_path, model="tiny-bert", stream={"first": 2}, evaluation=DURING)
    (sequence,) = Planner(config).sequences(config.methods[0], config.streams[0], 7, split="dev")
    view = run_sequence(sequence, evaluate=False)
    assert len(view.points) == 12
    sizes = [len(task.read("dev")) for task in sequence.open_stream().tasks]
    assert {point.n for point in view.points.values()} == {min(6, size) for size in sizes}
    assert TestAccessLog(tmp_path).entries() == []


def test_two_workers_share_the_looks_and_have_the_points_of_one(
    sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    few = {"model": "tiny-bert", "stream": {"first": 2}, "evaluation": DURING, "training": {"lr": 1e-2}}
    one = sequence_of("one", **few)
    expected = points_of(run_sequence(one, evaluate=False))
    two = sequence_of("two", **few)
    looked_at: list[int] = []
    score = Looks.score

    def noted(self: Looks, model: ScoredModel, task_id: int) -> TaskScore:
        looked_at.append(task_id)
        return score(self, model, task_id)

    def check(rank: int) -> None:
        Looks.score = noted  # type: ignore[method-assign]
        parallel = Parallel.current(torch.device("cpu"))
        assert points_of(run_sequence(two, evaluate=False, parallel=parallel)) == expected
        # four points a task: of the first the one has all, of the second each scores one task
        assert looked_at == [[0] * 4 + [1] * 4, [0] * 4][rank]

    in_workers(check, 2, tmp_path)
    with_none = sequence_of("none", **{**few, "evaluation": {}})

    def check_silent(rank: int) -> None:
        run_sequence(with_none, evaluate=False, parallel=Parallel.current(torch.device("cpu")))

    (tmp_path / "silent").mkdir()
    in_workers(check_silent, 2, tmp_path / "silent")
    assert equal(dict(stored(two, 2).weights), dict(stored(with_none, 2).weights))
