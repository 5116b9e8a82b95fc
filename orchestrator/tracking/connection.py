"""An MLflow store: whether there is one at a URI, and an experiment of it that is connected when it is first needed."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.redaction import redacted
from orchestrator.tracking.database import (
    SQLITE,
    artifacts_of,
    connected,
    database_file,
    fault_of,
    follow_folder,
    make_ready,
)

logger = logging.getLogger(__name__)

DATABASES = (SQLITE, "postgresql", "mysql", "mssql")

# What is in an experiment: of MLflow's own tables, which have had these names in all of its versions that know models
ACTIVE_IDS = """
    SELECT runs.run_uuid FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id
    WHERE experiments.name = :experiment AND runs.lifecycle_stage = 'active'
    UNION ALL
    SELECT logged_models.model_id FROM logged_models
    JOIN experiments ON experiments.experiment_id = logged_models.experiment_id
    WHERE experiments.name = :experiment AND logged_models.lifecycle_stage = 'active'
"""


def check_uri(uri: str) -> str:
    """Raises UserError where a URI can be no MLflow store's; gives a line where it may be one that does not answer now."""
    if uri.startswith(("http://", "https://")):
        return _check_server(uri)
    file = database_file(uri)
    if file is not None:
        _check_file(file)
        return ""
    if uri.startswith(DATABASES):
        return _check_database(uri)
    raise UserError(
        f"tracking.uri: {redacted(uri)!r} is not an MLflow URI; allowed: http(s)://…, {', '.join(DATABASES)}"
    )


def _check_server(uri: str) -> str:
    import requests

    try:
        # a server that is there answers in milliseconds; to a wrong address the connection may hang for minutes
        answer = requests.get(uri.rstrip("/") + "/health", timeout=5)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError) as error:
        raise UserError(f"tracking.uri: {redacted(uri)!r} is no URI of a server ({type(error).__name__})") from None
    except requests.RequestException as error:
        return f"tracking.uri: no MLflow server answers at {redacted(uri)} now ({type(error).__name__})"
    # MLflow's own client knows the token of one that wants to know who asks
    if 400 <= answer.status_code < 500 and answer.status_code not in (401, 403):
        raise UserError(
            f"tracking.uri: what answers at {redacted(uri)} is no MLflow server (status {answer.status_code})"
        )
    if answer.status_code >= 500:
        return f"tracking.uri: the MLflow server at {redacted(uri)} does not serve now (status {answer.status_code})"
    return ""


def _check_file(file: Path) -> None:
    """Raises UserError where a database can be neither read nor made there. None is made by asking."""
    try:
        is_there = file.is_file() and os.access(file, os.W_OK)
        if not is_there and not file.exists():
            # by trying: of /proc, permissions say nothing
            with tempfile.TemporaryFile(dir=file.parent):
                is_there = True
    # no folder, or a name that no file can have
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise UserError(f"tracking.uri: cannot open or make {str(file)!r}; its folder must be there, and be writable")


def _check_database(uri: str) -> str:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        create_engine(uri).connect().close()
    except OperationalError as error:
        return f"tracking.uri: the database does not answer now: {redacted(str(error).splitlines()[0])}"
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(f"tracking.uri: cannot open {redacted(uri)}: {redacted(str(error).splitlines()[0])}") from None
    return ""


def experiments(uri: str) -> dict[str, str]:
    """The experiments of a store: name -> id, newest first."""
    import mlflow

    file = database_file(uri)
    if file is not None:
        fault = fault_of(file)
        if fault:
            raise UserError(f"{file} is broken ({fault}); `orchestrator sync` fills a new one from the journals")
        # of a folder that may only be read, the artifacts are where they were written, or nowhere
        with contextlib.suppress(sqlite3.OperationalError):
            follow_folder(file, str(file.parent))
    return {e.name: e.experiment_id for e in mlflow.MlflowClient(uri).search_experiments() if e.experiment_id != "0"}


class Connection:
    """One experiment of an MLflow store. MLflow, which takes seconds to import, is imported when something is to be sent."""

    def __init__(self, uri: str, experiment: str, out: str, tell: Callable[[str], None] = logger.warning) -> None:
        self.uri = uri
        self.experiment = experiment
        self.out = out
        self.tell = tell

    @cached_property
    def client(self) -> Any:
        """The client of the store."""
        import mlflow

        # its errors too, each with a traceback: they are raised as well, and told in one line
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        file = database_file(self.uri)
        if file is not None:
            # or MLflow would hold a file open for ever that was set aside, or that somebody deleted
            os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
            line = make_ready(file)
            if line:
                self.tell(line)
            follow_folder(file, self.out)
        return mlflow.MlflowClient(self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """The id of the experiment, which is made where it is not there."""
        found = self.client.get_experiment_by_name(self.experiment)
        if found:
            # who runs a command that copies to it wants it back
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        artifacts = None
        # a server has an artifact store of its own; a bare database would put artifacts into the current folder
        if self.uri.startswith(DATABASES):
            artifacts = artifacts_of(self.out)
        return str(self.client.create_experiment(self.experiment, artifacts))

    def connect(self) -> None:
        """Import MLflow and make the experiment, where neither is done. Raises what MLflow raises."""
        _ = self.experiment_id

    def present_ids(self) -> set[str]:
        """The ids of the runs and models that the experiment has by now; empty where there is no such experiment."""
        # not through MLflow, whose import alone takes longer than all else of a start that has nothing to send
        file = database_file(self.uri)
        if file is not None:
            return self._ids_in_file(file)
        if self.uri.startswith(DATABASES):
            return self._ids_in_database()
        return self._ids_on_server()

    def _ids_in_file(self, file: Path) -> set[str]:
        try:
            with connected(file) as database:
                rows = database.execute(ACTIVE_IDS, {"experiment": self.experiment})
                return {str(row[0]) for row in rows}
        except sqlite3.Error:
            # a database that is new has no tables; of one in another layout, too, nothing is known: all is copied again
            return set()

    def _ids_in_database(self) -> set[str]:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError

        engine = create_engine(self.uri)
        try:
            with engine.connect() as connected:
                rows = connected.execute(text(ACTIVE_IDS), {"experiment": self.experiment})
                return {str(row[0]) for row in rows}
        except SQLAlchemyError:
            return set()
        finally:
            engine.dispose()

    def _ids_on_server(self) -> set[str]:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            return set()
        ids: set[str] = set()
        for run in _all_pages(self.client.search_runs, found.experiment_id):
            ids.add(run.info.run_id)
        for model in _all_pages(self.client.search_logged_models, found.experiment_id):
            ids.add(model.model_id)
        return ids


def _all_pages(search: Callable[..., Any], experiment_id: str) -> Iterator[Any]:
    """What a search of an experiment finds, of which a server gives a page at a time."""
    token = None
    while True:
        page = search([experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
