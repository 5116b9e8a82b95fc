"""Metrics are sent when a call is full, and the rest when all are asked for; each once."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tracking.connection import Connection
from orchestrator.tracking.metric_batches import MetricBatches
from orchestrator.tracking.runs import Runs


def test_a_full_call_is_sent_and_the_rest_waits(store: str, tmp_path: Path) -> None:
    """Three metrics a step: the 1,000th is the first of step 334, and its two others wait."""
    connection = Connection(store, str(tmp_path), str(tmp_path))
    client = connection.client
    runs = [client.create_run(connection.experiment_id).info.run_id for _ in range(2)]
    batches = MetricBatches(Runs(connection))

    def counts() -> list[int]:
        return [len(client.get_metric_history(run_id, key)) for run_id in runs for key in ("a", "b", "c-d")]

    for number in range(1, 335):
        batches.add(runs[0], {"a": 1.0 * number, "b": 2.0, "c:d": 3.0}, time=number, step=number, model_id=None)
    batches.add(runs[1], {"a": 1.0}, time=1, step=1, model_id=None)
    assert counts() == [334, 333, 333, 0, 0, 0]
    for _ in range(2):
        batches.flush()
        assert counts() == [334, 334, 334, 1, 0, 0]
    history = client.get_metric_history(runs[0], "a")
    assert sorted((metric.step, metric.value) for metric in history) == [(n, float(n)) for n in range(1, 335)]
