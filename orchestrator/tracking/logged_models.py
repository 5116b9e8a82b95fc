"""MLflow's logged models: one points to each checkpoint."""

from __future__ import annotations

from typing import Any

from orchestrator.storage.places import folder_at
from orchestrator.store.events import CheckpointSaved
from orchestrator.store.identities import RunIdentity
from orchestrator.tracking.parent_runs import ParentRuns
from orchestrator.tracking.sequence_names import model_name


def logged_model(
    runs: ParentRuns, sequence_id: str, sequence: dict[str, Any], event: CheckpointSaved, run_id: str
) -> str:
    """The id of the logged model that points to a checkpoint, found by its identity, or else created; no bytes are copied.

    `sequence` is its plan, as the journal has it.
    """
    import mlflow

    identity = RunIdentity(sequence_id, event.task_id).model_tags()
    query = " and ".join(f"tags.{tag} = '{value}'" for tag, value in identity.items())
    found = runs.client.search_logged_models([runs.experiment_id], query, max_results=1)
    if found:
        return str(found[0].model_id)
    tags = {
        **identity,
        "checkpoint_uri": folder_at(event.path).as_uri(),
        "key": event.key,
        "bytes": str(event.bytes),
        "reused": str(event.reused).lower(),
    }
    model = mlflow.create_external_model(
        name=model_name(sequence, event),
        source_run_id=run_id,
        tags=tags,
        params={"task": event.task, "task_id": str(event.task_id), "key": event.key},
        model_type="checkpoint",
        experiment_id=runs.experiment_id,
    )
    return str(model.model_id)
