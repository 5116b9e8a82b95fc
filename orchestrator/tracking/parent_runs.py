"""Runs that other runs hang below: a search, its trials, its evaluation. And MLflow's rules for names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NODE_TAG = "orchestrator.node"


Chain = Sequence[tuple[str, str]]  # (key, name) of each run from the topmost down


class ParentRuns:
    """Finds or creates the runs above others, by their key."""

    def __init__(self, client: Any, experiment_id: str) -> None:
        self.client, self.experiment_id = client, experiment_id
        self._ids: dict[str, str] = {}

    def run(self, chain: Chain, started: int) -> str | None:
        """The id of the last run of the chain; None for an empty one. `started` is in ms, for a run that is new."""
        parent: str | None = None
        for key, name in chain:
            parent = self._ids.get(key) or self._find(key) or self._create(key, name, parent, started)
            self._ids[key] = parent
        return parent

    def _find(self, key: str) -> str | None:
        found = self.client.search_runs([self.experiment_id], f"tags.`{NODE_TAG}` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create(self, key: str, name: str, parent: str | None, started: int) -> str:
        tags = {NODE_TAG: key, "mlflow.source.name": "orchestrator"}
        if parent:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment_id, start_time=started, tags=tags, run_name=name)
        return str(run.info.run_id)
