"""Copying journals to a real MLflow store, and reading what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlflow
from mlflow.entities import Run

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.tracking import MlflowSync


def copy_to_mlflow(sequences: Sequence[SequencePlan], uri: str) -> None:
    """Copy finished journals."""
    copy = MlflowSync(uri, "test", sequences[0].out)
    copy.follow(sequence.id for sequence in sequences)
    assert copy.close(60), copy.trouble


def runs(uri: str, sequence_id: str | None = None) -> list[Run]:
    """The runs of the experiment "test", or those of one sequence, in the order in which they began."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment
    query = ""
    if sequence_id:
        query = f"tags.`orchestrator.sequence` = '{sequence_id}'"
    order = ["attributes.start_time", "tags.mlflow.runName"]
    return list(client.search_runs([experiment.experiment_id], query, order_by=order))


def parent_of(found: Sequence[Run]) -> Run:
    """The one run of a sequence that is about the whole."""
    (parent,) = [run for run in found if run.data.tags["orchestrator.task_id"] == "-1"]
    return parent


def points(uri: str, run: Run, key: str) -> list[tuple[int, float]]:
    """The points of a metric as (step, value), in the order of steps."""
    history = mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def snapshot(uri: str) -> dict[str, Any]:
    """Runs with the number of points of every metric."""
    client = mlflow.MlflowClient(uri)
    return {
        run.info.run_id: {key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics}
        for run in runs(uri)
    }
