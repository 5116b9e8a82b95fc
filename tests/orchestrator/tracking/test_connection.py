"""An experiment of an MLflow store: a URI that is none is refused, and what is in the experiment is known without MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.tracking import check_uri
from orchestrator.tracking.connection import Connection


def test_uris_are_checked() -> None:
    with pytest.raises(UserError, match=r"no MLflow server answers at http://127.0.0.1:9"):
        check_uri("http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot open sqlite:////no/such/folder/x\.db"):
        check_uri("sqlite:////no/such/folder/x.db")
    with pytest.raises(UserError, match="'nonsense' is not an MLflow URI"):
        check_uri("nonsense")


def test_the_ids_of_an_experiment_are_those_of_its_runs_and_models(store: str, tmp_path: Path) -> None:
    """Read from the tables as a server gives them page by page; none that was deleted, and none of another experiment."""
    connection = Connection(store, str(tmp_path), str(tmp_path))
    client = connection.client
    # more than a page of either
    runs = [client.create_run(connection.experiment_id).info.run_id for _ in range(3)]
    models = []
    for number in range(102):
        model = client.create_logged_model(connection.experiment_id, name=f"m{number}")
        models.append(model.model_id)
    other = Connection(store, f"{tmp_path}-other", str(tmp_path))
    other.client.create_run(other.experiment_id)
    client.delete_run(runs[0])
    client.delete_logged_model(models[0])
    expected = {*runs[1:], *models[1:]}
    assert connection._ids_on_server() == expected
    assert connection._ids_in_database() == expected
    assert Connection(store, str(tmp_path), str(tmp_path)).present_ids() == expected


def test_a_store_that_is_not_there_has_no_ids(store: str, tmp_path: Path) -> None:
    new = Connection(f"sqlite:///{tmp_path}/new.db", "any", str(tmp_path))
    assert new.present_ids() == set()
    assert not (tmp_path / "new.db").exists(), "nor is it made"
    assert new._ids_in_database() == set()
    assert Connection(store, "no such experiment", str(tmp_path)).present_ids() == set()
    assert Connection(store, "no such experiment", str(tmp_path))._ids_on_server() == set()
