"""All that is written of runs in one experiment of MLflow: each is found by its identity, and made where it is not there.

No request is repeated blindly. A server may have done what its answer did not arrive to tell, so whoever tries again asks
first whether it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.events import CheckpointSaved, SequenceStarted
from orchestrator.store.identities import PARENT_TAG
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.logged_models import logged_model
from orchestrator.tracking.names import RUN_NAME_LENGTH, flatten, safe_key, short
from orchestrator.tracking.sequence_names import dataset_inputs

# MLflow's limits on one call, and on a parameter's length
PARAMS_PER_CALL = 100
PARAM_LENGTH = 500

SOURCE_TAGS = {"mlflow.source.name": "orchestrator"}
ABOVE_TAG = "mlflow.parentRunId"
DESCRIBED_TAG = "orchestrator.described"
ENVIRONMENT = ("versions", "git_commit", "machine", "workers", "device")


class Runs:
    """Finds, creates and writes the runs of one experiment."""

    # whether files and pictures are kept, which cost something to make
    takes_files = True

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
            all_tags[ABOVE_TAG] = parent
        run_name = short(name, RUN_NAME_LENGTH)
        run = self.client.create_run(self.experiment_id, start_time=started, tags=all_tags, run_name=run_name)
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

    def begin(self, run_id: str) -> None:
        """Say that a run goes on, whatever it was before."""
        self.client.update_run(run_id, "RUNNING")

    def end(self, run_id: str, status: str, time: int) -> None:
        """Say how and when a run ended."""
        self.client.set_terminated(run_id, status, time)

    def end_below(self, run_id: str, name: str, status: str, time: int) -> None:
        """End the runs of a name that hang below another."""
        below = f"tags.`{ABOVE_TAG}` = '{run_id}' and attributes.run_name = '{name}'"
        for run in self.client.search_runs([self.experiment_id], below):
            self.end(run.info.run_id, status, time)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set one tag."""
        self.client.set_tag(run_id, key, value)

    def log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Log the parameters that a run does not have yet: MLflow lets none change."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        params: list[Any] = []
        for key, value in as_params(values).items():
            if key not in known:
                params.append(Param(key, value))
        for start in range(0, len(params), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])

    def log_metrics(self, run_id: str, metrics: Sequence[Any]) -> None:
        """Send points, no more than a call takes. One that is there stays one: key, step, time and value are the same."""
        self.client.log_batch(run_id, metrics=metrics)

    def log_dict(self, run_id: str, content: Any, file: str) -> None:
        """Keep plain values as a file."""
        self.client.log_dict(run_id, content, file)

    def log_artifact(self, run_id: str, file: Path, folder: str) -> None:
        """Keep a copy of a file."""
        self.client.log_artifact(run_id, str(file), folder)

    def describe(self, run_id: str, event: SequenceStarted) -> None:
        """Say what was asked for, on which data, and where it runs; once."""
        # marked only when all of it is there: a process that died amid it describes the run again
        if DESCRIBED_TAG in self.client.get_run(run_id).data.tags:
            return
        self.log_params(run_id, settings_of(event))
        self.log_dict(run_id, event.sequence, "config.yaml")
        self.log_dict(run_id, {"data": event.data}, "data.json")
        self.log_dict(run_id, environment_of(event), "environment.json")
        self.client.log_inputs(run_id, dataset_inputs(event.data))
        self.set_tag(run_id, DESCRIBED_TAG, "yes")

    def add_model(
        self, run_id: str, sequence_id: str, sequence: dict[str, Any], event: CheckpointSaved, is_new: bool
    ) -> str:
        """The id of the logged model of a checkpoint, which is its run's output. `is_new`: the run cannot have it yet."""
        from mlflow.entities import LoggedModelOutput

        model_id = logged_model(self.connection, sequence_id, sequence, event, run_id)
        if is_new or model_id not in outputs_of(self.client.get_run(run_id)):
            self.client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        return model_id


def outputs_of(run: Any) -> set[str]:
    """The ids of the models that a run names as its outputs."""
    if not run.outputs:
        return set()
    return {output.model_id for output in run.outputs.model_outputs}


def as_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as MLflow keeps parameters: under keys that it takes, as text that is not too long."""
    params: dict[str, str] = {}
    for key, value in values.items():
        params[safe_key(key)] = str(value)[:PARAM_LENGTH]
    return params


def environment_of(event: SequenceStarted) -> dict[str, Any]:
    """Where a sequence runs, and with what."""
    return event.model_dump(include=set(ENVIRONMENT))


def settings_of(event: SequenceStarted) -> dict[str, Any]:
    """The parameters of a sequence's run."""
    settings = flatten({**event.sequence, **environment_of(event)})
    # hashes, of which a parameter would hold the first few
    settings.pop("keys", None)
    return settings
