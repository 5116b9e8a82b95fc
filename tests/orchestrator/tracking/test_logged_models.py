"""A logged model for each checkpoint, made once."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tracking.connection import Connection
from orchestrator.tracking.logged_models import logged_model
from tests.orchestrator.store.examples import checkpoint


def test_a_checkpoint_has_one_logged_model_whoever_asks(store: str, tmp_path: Path) -> None:
    sequence = {"method": {"name": "mine"}, "stream": {"name": "papers"}, "seed": 3, "keys": ["a", "b"]}
    ids = []
    for task_id in (0, 0, 1):
        connection = Connection(store, str(tmp_path), str(tmp_path))

        run = connection.client.create_run(connection.experiment_id)
        ids.append(
            logged_model(
                connection.client, connection.experiment_id, "models", sequence, checkpoint(task_id), run.info.run_id
            )
        )
    assert ids[0] == ids[1] != ids[2]
    model = connection.client.get_logged_model(ids[0])
    assert (model.tags["key"], model.tags["checkpoint_uri"], model.params["task"]) == ("k", "file:///p", "0")
