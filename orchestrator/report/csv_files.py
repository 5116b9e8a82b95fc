"""The results of an experiment as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import StorageFailed
from orchestrator.evaluation.metrics import METRICS
from orchestrator.evaluation.scorers import SCORERS
from orchestrator.planning.experiment import Experiment
from orchestrator.report.curves.files import further_columns, write_points
from orchestrator.report.measures import parts_by_scorer
from orchestrator.report.probes import write_probes
from orchestrator.report.results import USAGE_UNITS


def write_csv(experiment: Experiment, result: dict[str, Any]) -> Path:
    """Write `summary.csv`, with a row for each sequence, and the matrix of each sequence; returns the summary's path.

    Where a stream's tasks have several scorers, `summary-by-scorer.csv` has a row for each sequence and scorer; in the
    summary, `unit` and the metrics are empty where the scores are in different units. `matrix-<sequence>.csv` holds the
    accuracy matrix, of shape (T+1) x T: a row for the initial model, then one for the state after each task; a column for
    the score on each task, in the unit of its scorer. `scores.csv` has a row for each of these scores, with the bounds of
    its 95% bootstrap interval over the examples (`low` and `high`). `points-<sequence>.csv`
    and `.png` hold its scores amid training.
    """
    summary = experiment.folder / "summary.csv"
    # the number of runs in each row: who averages over a method's rows sees that some are missing
    runs = ["seconds", *USAGE_UNITS, "status", "runs_finished", "runs_planned"]
    columns = ["method", "stream", "seed", "scoring", "unit", *METRICS, *further_columns(result["sequences"]), *runs]
    # the csv module writes line ends itself
    with summary.open("w", newline="") as stream:
        # a result holds more than a table can, such as its matrices
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(result["sequences"])
    _write_by_scorer(experiment.folder / "summary-by-scorer.csv", result["sequences"])
    write_probes(experiment.folder / "probes.csv", result["sequences"])
    _write_scores(experiment.folder / "scores.csv", result["sequences"])
    for sequence in result["sequences"]:
        _write_matrix(experiment.folder / f"matrix-{sequence['id']}.csv", sequence)
        write_points(experiment.folder, sequence)
    return summary


def write_csv_or_say(experiment: Experiment, result: dict[str, Any]) -> list[str]:
    """Write the files of `write_csv`. Gives a line where that fails: a full disk takes nothing from what was computed."""
    try:
        write_csv(experiment, result)
    except (OSError, StorageFailed) as error:
        reason = getattr(error, "strerror", None) or error
        return [f"the CSV files in {experiment.folder} could not be written: {reason}"]
    return []


def _write_by_scorer(path: Path, sequences: Sequence[dict[str, Any]]) -> None:
    rows = []
    for sequence in sequences:
        for part in parts_by_scorer(sequence):
            scorer = part["scorers"][0]
            rows.append({**part, "scorer": scorer, "tasks": " ".join(part["tasks"])})
    if not rows:
        return
    with path.open("w", newline="") as stream:
        columns = ["method", "stream", "seed", "scorer", "unit", "better", "tasks", *METRICS]
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _write_scores(path: Path, sequences: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["method", "stream", "seed", "tasks_seen", "task", "scorer", "unit", "better", "score", "low", "high", "n"]
        )
        for sequence in sequences:
            run = [sequence["method"], sequence["stream"], sequence["seed"]]
            for tasks_seen, scores in enumerate(sequence["accuracy_matrix"]):
                for task_id, score in enumerate(scores):
                    if score is not None:
                        writer.writerow([*run, tasks_seen, *_score_cells(sequence, tasks_seen, task_id, score)])


def _score_cells(sequence: dict[str, Any], tasks_seen: int, task_id: int, score: float) -> list[Any]:
    scorer = SCORERS[sequence["scorers"][task_id]]
    # scores that are older than intervals have none
    low, high = sequence["intervals"][tasks_seen][task_id] or ("", "")
    task = [sequence["tasks"][task_id], scorer.name, scorer.unit, scorer.better]
    return [*task, score, low, high, sequence["test_sizes"][task_id]]


def _write_matrix(path: Path, sequence: dict[str, Any]) -> None:
    states = ["(before training)", *sequence["tasks"]]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["after", *sequence["tasks"]])
        for state, scores in zip(states, sequence["accuracy_matrix"], strict=True):
            writer.writerow([state, *scores])
