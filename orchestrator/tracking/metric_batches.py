"""Metrics on their way to MLflow: sent together, since a call for each step would take longer than the step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from orchestrator.tracking.names import safe_key
from orchestrator.tracking.runs import Runs

# MLflow takes no more metrics a call
METRICS_PER_CALL = 1000


class MetricBatches:
    """The metrics that wait for each run. A run's are sent when they fill a call, and all by `flush`."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._waiting: dict[str, list[Any]] = defaultdict(list)

    def add(self, run_id: str, values: Mapping[str, float], time: int, step: int, model_id: str | None) -> None:
        """Add points at one time and step to a run, and to a logged model where one is given."""
        from mlflow.entities import Metric

        for key, value in values.items():
            self._waiting[run_id].append(Metric(safe_key(key), value, time, step, model_id=model_id))
            # what waits of a long journal would else fill the memory
            if len(self._waiting[run_id]) == METRICS_PER_CALL:
                self._send(run_id)

    def flush(self) -> None:
        """Send what waits."""
        for run_id in list(self._waiting):
            self._send(run_id)

    def _send(self, run_id: str) -> None:
        self.runs.log_metrics(run_id, self._waiting.pop(run_id))
