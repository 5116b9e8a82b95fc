"""Scoring beside training: which states are taken up and when, and what is noted of one that cannot be scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ray.exceptions

from orchestrator import logs
from orchestrator.cluster.scoring import AsyncScoring
from orchestrator.cluster.scoring_pool import Ended, Job, what_is_scored
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.events import ScoringFailed, SequenceStarted
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.view import View, fold, read_view
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.store.examples import checkpoint, score, started


class Noted(AsyncScoring):
    """Writes down what it would start, and starts no Ray."""

    def _start(self, sequence: SequencePlan, tasks_seen: int) -> None:
        self.problems.append(f"{sequence.id[0]} {tasks_seen}")


@pytest.fixture
def sequence(sequence_of: Callable[..., SequencePlan]) -> SequencePlan:
    return sequence_of(model="tiny-bert", stream={"first": 2})


def begun() -> SequenceStarted:
    return started("reviews", "headlines")


def test_each_state_is_started_once_it_is_stored(sequence: SequencePlan, tmp_path: Path) -> None:
    taken = Noted(0, tmp_path)
    view = View(sequence.id)
    taken.tick([sequence], [view])
    assert taken.problems == [], "nothing is known of it yet"
    view.add(begun())
    taken.tick([sequence], [view])
    assert taken.problems == [f"{sequence.id[0]} 0"], "the initial model needs no checkpoint"
    view.add(checkpoint(0))
    for _ in range(3):
        taken.tick([sequence], [view])
    assert taken.problems == [f"{sequence.id[0]} 0", f"{sequence.id[0]} 1"]


def test_a_state_whose_scores_are_there_is_passed_over(sequence: SequencePlan, tmp_path: Path) -> None:
    scores = [score(0, 0, 1.0), score(0, 1, 1.0), score(1, 0, 1.0)]
    other = sequence.model_copy(update={"id": f"x{sequence.id}"})
    views = [fold("s", [begun(), checkpoint(0), *scores]), fold("x", [begun()])]
    taken = Noted(0, tmp_path)
    taken.tick([sequence, other], views)
    assert taken.problems == [f"{sequence.id[0]} 1", "x 0"], "a state that lacks one score is taken up"


def test_a_state_is_called_by_its_last_task(sequence: SequencePlan) -> None:
    assert what_is_scored(sequence, 0) == f"scoring the initial model of {sequence.id}"
    assert what_is_scored(sequence, 1) == f"scoring the state after task 'reviews' of {sequence.id}"
    assert what_is_scored(sequence, 2) == f"scoring the state after task 'headlines' of {sequence.id}"


def test_a_state_that_cannot_be_scored_is_a_problem_with_a_log(sequence: SequencePlan, tmp_path: Path) -> None:
    """Of a process that died, by whom nothing could be written, the log is written here."""
    scored = AsyncScoring(0, tmp_path / "logs" / "ray-small-1")
    scored._note_failure(sequence, 1, ray.exceptions.WorkerCrashedError())
    log = logs.scoring_log(sequence.out, sequence.id, 1)
    (problem,) = scored.problems
    assert problem.startswith(
        f"scoring the state after task 'reviews' of {sequence.id} failed: its process ended without"
    )
    assert problem.endswith(f"; log: {log}")
    assert "WorkerCrashedError" in log.read_text()
    (event,) = Tail(journal_folder(sequence.out, sequence.id)).new_events()
    assert isinstance(event, ScoringFailed)
    assert (event.tasks_seen, event.method, event.log) == (1, "ft", str(log))
    assert event.reason.startswith("its process ended without a word")


def test_scores_that_a_task_computed_are_told_to_the_journal(
    sequence: SequencePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in the store; of the workers' own journal none is left here."""
    view = run_sequence(sequence, until=1)
    folder = journal_folder(sequence.out, sequence.id)
    for file in folder.iterdir():
        file.unlink()
    Journal(folder).append(begun())
    scored = AsyncScoring(0, tmp_path)
    job = Job(sequence, 1, tmp_path / "introduction.json")
    monkeypatch.setattr(scored.pool, "poll", lambda: [Ended(job, None)])
    scored._collect()
    assert (folder / "evaluate.jsonl").exists()
    again = read_view(sequence.out, sequence.id)
    assert {position: found.score for position, found in again.scores.items()} == {
        (1, task_id): view.scores[1, task_id].score for task_id in (0, 1)
    }
