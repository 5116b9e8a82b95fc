"""Results of scores amid training: all points, and metrics only where all of them are there."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from orchestrator.evaluation.curves.stability import Point
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.csv_files import write_csv
from orchestrator.report.curves.results import knowledge_result, merged_points, point_results, points_in
from orchestrator.report.results import results
from orchestrator.report.tables import print_report
from orchestrator.store.events import CheckpointSaved, PointScored
from orchestrator.store.records.event import Event
from orchestrator.store.view import View, fold
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.orchestrator.report.curves.examples import POINTS
from tests.orchestrator.store.examples import checkpoint, started

DURING: dict[str, Any] = {"during": {"every": 1, "window": 2}}


def events_of(points: list[list[Any]] = POINTS, tasks: int = 2, scorer: str = "exact-match") -> list[Event]:
    """The journal of a sequence of two tasks, of which so many are trained."""
    start = started("reviews", "headlines")
    asked = {"evaluation": DURING, "scorers": [scorer, scorer]}
    events: list[Event] = [start.model_copy(update={"sequence": asked})]
    for task_id, step, scored_id, score, n, seconds in points:
        named = {"scored_id": scored_id, "scored_task": start.tasks[scored_id]}
        events.append(PointScored(task_id=task_id, step=step, score=score, n=n, seconds=seconds, **named))
    checkpoints: list[CheckpointSaved] = [checkpoint(task_id) for task_id in range(tasks)]
    return [*events, *checkpoints]


def view_of(**changes: Any) -> View:
    return fold("s", events_of(**changes))


def test_all_points_and_their_metrics(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2}, evaluation=DURING)
    shuffled = [POINTS[index] for index in (5, 0, 7, 2, 1, 3, 6, 4)]
    found = point_results(sequence, view_of(points=shuffled))
    assert found["points"] == POINTS
    assert (found["window"], found["seconds_of_looks"]) == (2, 4.0)
    # in a window of two points the first task rises by 80, and the second by 50
    assert (found["min_acc"], found["wc_acc"], found["wf"], found["wp"]) == (20.0, 50.0, 35.0, 65.0)
    assert points_in(found)[4] == Point(1, 1, 0, 20.0)


def test_the_window_is_the_one_that_is_asked_for_now(sequence_of: Callable[..., SequencePlan]) -> None:
    """The journal says 2: in a window of three points the second task rises by 75."""
    sequence = sequence_of(stream={"first": 2}, evaluation={"during": {"every": 1, "window": 3}})
    found = point_results(sequence, view_of())
    assert (found["window"], found["wp"]) == (3, (80 + 75) / 2)


def test_nothing_is_said_where_nothing_was_asked_for(sequence_of: Callable[..., SequencePlan]) -> None:
    assert point_results(sequence_of(stream={"first": 2}), view_of()) == {}
    assert points_in({}) == []


def test_no_metrics_before_all_tasks_are_trained_and_their_points_there(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    sequence = sequence_of(stream={"first": 2}, evaluation=DURING)
    for view in (view_of(tasks=1), view_of(points=POINTS[2:])):
        found = point_results(sequence, view)
        assert (found["min_acc"], found["wc_acc"], found["wf"], found["wp"]) == (None, None, None, None)
        assert found["points"]


def test_a_reference_run_has_points_and_no_gap(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2}, evaluation=DURING, methods=["joint"])
    found = point_results(sequence, view_of())
    assert found["points"] == POINTS
    assert found["wf"] is None


def test_where_lower_is_better_the_worst_score_is_the_highest(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2}, evaluation=DURING)
    found = point_results(sequence, view_of(scorer="perplexity"))
    # the first task at its worst has 70, after the first step of the second; the second ends at 80
    assert (found["min_acc"], found["wc_acc"]) == (70.0, 75.0)


def test_experts_have_the_points_of_one_run() -> None:
    parts = [
        {"points": [[0, 0, 0, 10.0, 8, 0.5], [0, 2, 0, 90.0, 8, 0.5]], "seconds_of_looks": 1.0, "window": 2},
        {"points": [[0, 3, 0, 60.0, 8, 0.25]], "seconds_of_looks": 0.25, "window": 2},
    ]
    merged = merged_points(parts)
    assert merged["points"] == [[0, 0, 0, 10.0, 8, 0.5], [0, 2, 0, 90.0, 8, 0.5], [1, 3, 1, 60.0, 8, 0.25]]
    assert (merged["seconds_of_looks"], merged["wf"]) == (1.25, None)
    assert merged_points([{}, {}]) == {}


def test_fuar_of_a_stream_that_says_what_is_kept(tmp_path: Any) -> None:
    matrix = np.array([[10.0, 20.0, 30.0], [90.0, 25.0, 35.0], [60.0, 80.0, 40.0], [70.0, 50.0, 100.0]])
    fuar = {"forgotten": ["reviews"], "updated": ["headlines"], "acquired": ["requests"]}
    stream = {"first": 3, "fuar": fuar}
    sequence, joint = plan(small_config(tmp_path, stream=stream, methods=["ft", "joint"]))
    # 90 falls to 70; 25 rises to 50, and 40 to 100
    assert knowledge_result(sequence, matrix, is_scored=True) == {"fuar": round(20 / (25 + 60), 6)}
    assert knowledge_result(sequence, np.zeros((4, 3)), is_scored=True) == {"fuar": "no gain"}
    assert knowledge_result(sequence, matrix, is_scored=False) == {"fuar": None}
    assert knowledge_result(joint, matrix, is_scored=True) == {}
    (plain,) = plan(small_config(tmp_path, stream={"first": 3}))
    assert knowledge_result(plain, matrix, is_scored=True) == {}


def test_from_journals_to_table_and_files(tmp_path: Path) -> None:
    """A run of two tasks beside its experts, of which the first has the run's own points."""
    stream = {"first": 2, "fuar": {"forgotten": ["reviews"], "acquired": ["headlines"]}}
    evaluation = {"during": {"every": 2, "examples": 5}}
    config = small_config(tmp_path, methods=["ft", "expert"], stream=stream, evaluation=evaluation)
    sequences = plan(config)
    for sequence in sequences:
        run_sequence(sequence)
    experiment = Experiment(config, tuple(sequences))
    experiment.save()
    found = results(experiment)
    own, expert = found["sequences"]
    # three steps a task: 0, 1, 2 and the last
    assert [point[:3] for point in own["points"]] == [
        *([0, step, 0] for step in range(4)),
        *([1, step, scored] for step in range(4) for scored in range(2)),
    ]
    assert [point[:3] for point in expert["points"]] == [[task, step, task] for task in range(2) for step in range(4)]
    assert expert["points"][:4] == own["points"][:4]
    assert own["lifelong_beside"] == "expert"
    assert own["fuar"] == "no gain" or own["fuar"] >= 0
    assert own["wf"] is not None
    write_csv(experiment, found)
    with (experiment.folder / "summary.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (float(row["wf"]), row["lifelong_beside"]) == (own["wf"], "expert")
    assert (experiment.folder / f"points-{own['id']}.csv").exists()
    screen = io.StringIO()
    print_report(found, Console(file=screen, width=200))
    assert "amid training" in screen.getvalue()
    assert "beside expert" in screen.getvalue()
    assert "FUAR" in screen.getvalue()
