"""An experiment of an MLflow store: a URI that is none is refused, and what is in the experiment is known without MLflow."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.tracking import check_uri, experiments
from orchestrator.tracking.connection import Connection


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("nonsense", "'nonsense' is not an MLflow URI; allowed: "),
        ("http://:80", "'http://:80' is no URI of a server"),
        ("http://[::1", "'http://[::1' is no URI of a server"),
        ("sqlite:////no/such/folder/x.db", "cannot open or make '/no/such/folder/x.db'"),
        ("sqlite:////proc", "cannot open or make '/proc'"),
        ("postgresql://host:port/db", "cannot open postgresql://host:port/db"),
        ("mssql+nothing://host/db", "cannot open mssql"),
    ],
)
def test_a_uri_that_is_none_is_one_line(uri: str, line: str) -> None:
    with pytest.raises(UserError, match=r"^tracking\.uri: ") as refused:
        check_uri(uri)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_is_down_is_a_line_and_no_error() -> None:
    """Whoever it is that does not answer, the line has no password in it."""
    assert check_uri("http://me:secret@127.0.0.1:9") == (
        "tracking.uri: no MLflow server answers at http://***@127.0.0.1:9 now (ConnectionError)"
    )


@pytest.mark.parametrize(("status", "is_down"), [(200, False), (401, False), (503, True), (404, None)])
def test_what_a_server_answers(status: int, is_down: bool | None) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        if is_down is None:
            with pytest.raises(UserError, match=rf"what answers at {uri} is no MLflow server \(status 404\)"):
                check_uri(uri)
        else:
            assert bool(check_uri(uri)) == is_down


def test_mlflow_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As of a disk that is full, of which every call would print one."""
    # of its own: the others go on with theirs
    own = tmp_path / "own.db"
    connection = Connection(f"sqlite:///{own}", "broken", str(tmp_path))
    connection.connect()
    with contextlib.closing(sqlite3.connect(own)) as database:
        database.execute("DROP TABLE experiment_tags")
        database.commit()
    with pytest.raises(Exception, match="experiment_tags"):
        connection.client.set_experiment_tag(connection.experiment_id, "a", "b")
    assert capfd.readouterr().err == ""


def test_a_check_leaves_no_file(tmp_path: Path) -> None:
    assert check_uri(f"sqlite:///{tmp_path}/new.db") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_broken_is_named_and_not_served(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"nothing" * 1000)
    with pytest.raises(
        UserError, match=r"mlflow.db is broken \(file is not a database\); `orchestrator sync` fills a new one"
    ):
        experiments(f"sqlite:///{tmp_path}/mlflow.db")


def test_an_experiment_that_somebody_deleted_comes_back(store: str, tmp_path: Path) -> None:
    first = Connection(store, str(tmp_path), str(tmp_path))
    first.client.delete_experiment(first.experiment_id)
    again = Connection(store, str(tmp_path), str(tmp_path))
    assert again.experiment_id == first.experiment_id
    again.client.create_run(again.experiment_id)


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
