"""MLflow's logged models: one points to each checkpoint."""

from __future__ import annotations

import tempfile
from typing import Any

from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved
from orchestrator.store.identities import RunIdentity
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.sequence_names import model_name


def find_models(client: Any, experiment_id: str, identity: RunIdentity) -> list[Any]:
    """The logged models of a checkpoint: one, where all is well."""
    query = " and ".join(f"tags.{tag} = '{value}'" for tag, value in identity.model_tags().items())
    return list(client.search_logged_models([experiment_id], query))


def logged_model(
    connection: Connection, sequence_id: str, sequence: dict[str, Any], event: CheckpointSaved, run_id: str
) -> str:
    """The id of the logged model that points to a checkpoint, found by its identity, or else created; no bytes are copied.

    `sequence` is its plan, as the journal has it.
    """
    identity = RunIdentity(sequence_id, event.task_id)
    client = connection.client
    found = find_models(client, connection.experiment_id, identity)
    if found:
        model = found[0]
    else:
        # in three steps of our own: `mlflow.create_external_model` would leave the first one's model for good if it died after
        model = client.create_logged_model(
            connection.experiment_id,
            name=model_name(sequence, event),
            source_run_id=run_id,
            tags=identity.model_tags() | _tags(event, connection.out),
            params={"task": event.task, "task_id": str(event.task_id), "key": event.key},
            model_type="checkpoint",
        )
    if not is_ready(model):
        _finish(client, model)
    return str(model.model_id)


def is_ready(model: Any) -> bool:
    """Whether a logged model has all that belongs to it."""
    from mlflow.entities import LoggedModelStatus

    return bool(model.status == LoggedModelStatus.READY)


def _tags(event: CheckpointSaved, out: str) -> dict[str, str]:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    return {
        # not the path that the journal has: the folder may have been moved since
        "checkpoint_uri": Store(folder_at(out)).path(event.key).as_uri(),
        "key": event.key,
        "bytes": str(event.bytes),
        "reused": str(event.reused).lower(),
        MLFLOW_MODEL_IS_EXTERNAL: "true",
    }


def _finish(client: Any, model: Any) -> None:
    """Give a model that was created the file by which MLflow's registry takes it, and say that it is ready."""
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(f"{folder}/MLmodel")
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
