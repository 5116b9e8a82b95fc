"""What a sequence, its tasks, its models and its data are called in MLflow."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.store.events import CheckpointSaved, SequenceStarted
from orchestrator.tracking.names import DATASET_NAME_LENGTH, plain_name, short

# MLflow's limit on the length of a dataset's digest
DIGEST_LENGTH = 36


def run_tags(start: SequenceStarted) -> dict[str, str]:
    """The tags that a sequence's run and its tasks' runs have for whoever filters the table."""
    tags = {
        "orchestrator.method": method_name(start.sequence),
        "orchestrator.stream": start.sequence["stream"]["name"],
    }
    if start.git_commit:
        tags["mlflow.source.git.commit"] = start.git_commit
    return tags


def sequence_name(sequence: dict[str, Any]) -> str:
    """The name of a sequence's run: its method, its stream, the one task that it is about if it is, its seed."""
    parts = [method_name(sequence), sequence["stream"]["name"]]
    only_task = sequence["stream"].get("only")
    if only_task:
        parts.append(only_task)
    parts.append(f"seed {sequence['seed']}")
    return " · ".join(parts)


def model_name(sequence: dict[str, Any], event: CheckpointSaved) -> str:
    """The name of a checkpoint's logged model."""
    return plain_name(f"{event.task_id + 1}-{event.task} · {method_name(sequence)} · seed {sequence['seed']}")


def method_name(sequence: dict[str, Any]) -> str:
    """The name that the user gave a method, else that of its parts."""
    method = sequence["method"]
    if method["name"]:
        return str(method["name"])
    parts = [method["tuning"]["name"]]
    for plugin in method["plugins"]:
        parts.append(plugin["name"])
    name = "+".join(parts)
    if method.get("reference"):
        name += f" ({method['reference']})"
    return name


def dataset_inputs(data: list[dict[str, Any]]) -> list[Any]:
    """The train split of each task, as an input of a run; `data` is what the start of a sequence says of it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs: list[Any] = []
    for task in data:
        digest = task["train_sha256"][:DIGEST_LENGTH]
        profile = json.dumps({"sizes": task["sizes"], "dropped_rows": task["dropped_rows"]})
        name = short(task["task"], DATASET_NAME_LENGTH)
        dataset = Dataset(name, digest, "local", json.dumps(task["source"]), profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "train")]))
    return inputs
