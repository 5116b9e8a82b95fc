"""Runs that other runs hang below: a search, its trials, its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.store.identities import PARENT_TAG
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.names import safe_key

# MLflow's limits on one call, and on a parameter's length
PARAMS_PER_CALL = 100
PARAM_LENGTH = 500

SOURCE_TAGS = {"mlflow.source.name": "orchestrator"}


class ParentRuns:
    """Finds or creates runs in one experiment of MLflow, those above others by their key."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._ids: dict[str, str] = {}

    @property
    def client(self) -> Any:
        """The client of the store. Asking for it connects."""
        return self.connection.client

    @property
    def experiment_id(self) -> str:
        """The id of the experiment in the store. Asking for it connects."""
        return self.connection.experiment_id

    def find(self, tags: Mapping[str, str]) -> str | None:
        """The id of the run that has all of these tags."""
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        if not found:
            return None
        return str(found[0].info.run_id)

    def create(self, tags: Mapping[str, str], name: str, parent: str | None, started: int) -> str:
        """A new run with these tags, below another; `started` is in milliseconds."""
        all_tags = SOURCE_TAGS | dict(tags)
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment_id, start_time=started, tags=all_tags, run_name=name)
        return str(run.info.run_id)

    def last_of(self, chain: Sequence[tuple[str, str]], started: int) -> str | None:
        """The id of the last run of a chain of (key, name) from the topmost down; None for an empty one."""
        parent: str | None = None
        for key, name in chain:
            tags = {PARENT_TAG: key}
            if key not in self._ids:
                self._ids[key] = self.find(tags) or self.create(tags, name, parent, started)
            parent = self._ids[key]
        return parent

    def log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Log the parameters that a run does not have yet: MLflow lets none change."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        params: list[Any] = []
        for key, value in values.items():
            if safe_key(key) not in known:
                params.append(Param(safe_key(key), str(value)[:PARAM_LENGTH]))
        for start in range(0, len(params), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
