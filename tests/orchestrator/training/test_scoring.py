"""A scorer that keeps data and model between states: the same scores as ever, and each reading of a test split noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import Store
from orchestrator.store.predictions import load_predictions
from orchestrator.training.learner import Learner
from orchestrator.training.scoring import StateScorer, score_state
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.training.helpers import ANNEALED

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
