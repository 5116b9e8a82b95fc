"""A logged model for each checkpoint, made once."""

from __future__ import annotations

from pathlib import Path
from urllib.request import url2pathname

from orchestrator.store.identities import RunIdentity
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.logged_models import find_models, is_ready, logged_model
from tests.orchestrator.store.examples import checkpoint

SEQUENCE = {"method": {"name": "mine"}, "stream": {"name": "papers"}, "seed": 3, "keys": ["a", "b"]}


def test_a_checkpoint_has_one_logged_model_whoever_asks(store: str, tmp_path: Path) -> None:
    """It points to where the state is now, whatever path the journal of a folder that was moved has."""
    ids = []
    for task_id in (0, 0, 1):
        connection = Connection(store, str(tmp_path), str(tmp_path))
        run = connection.client.create_run(connection.experiment_id)
        ids.append(logged_model(connection, "models", SEQUENCE, checkpoint(task_id), run.info.run_id))
    assert ids[0] == ids[1] != ids[2]
    model = connection.client.get_logged_model(ids[0])
    assert (model.tags["key"], model.params["task"]) == ("k", "0")
    assert model.tags["checkpoint_uri"] == f"{tmp_path.as_uri()}/checkpoints/k"


def test_a_model_that_was_left_half_made_is_finished(store: str, tmp_path: Path) -> None:
    """As by a process that died, or was not told, after the first of three requests."""
    connection = Connection(store, str(tmp_path), str(tmp_path))
    client = connection.client
    run = client.create_run(connection.experiment_id)
    identity = RunIdentity("models", 0)
    begun = client.create_logged_model(connection.experiment_id, name="1-a", tags=identity.model_tags())
    assert not is_ready(begun)
    assert logged_model(connection, "models", SEQUENCE, checkpoint(0), run.info.run_id) == begun.model_id
    (model,) = find_models(client, connection.experiment_id, identity)
    assert is_ready(model)
    assert (Path(url2pathname(model.artifact_location.removeprefix("file://"))) / "MLmodel").exists()
