"""An MLflow store: whether there is one at a URI, and an experiment of it that is connected when it is first needed."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.storage.places import local_folder

SQLITE = "sqlite:///"
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


def check_uri(uri: str) -> None:
    """Raises UserError where a tracking server does not answer, or the URI is none."""
    if uri.startswith(("http://", "https://")):
        import requests

        try:
            # a server that is there answers in milliseconds; to a wrong address the connection may hang for minutes
            requests.get(uri.rstrip("/") + "/health", timeout=5).raise_for_status()
        except requests.RequestException as error:
            cause = type(error).__name__
            raise UserError(f"tracking.uri: no MLflow server answers at {uri} ({cause})") from None
    elif uri.startswith(DATABASES):
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError

        try:
            create_engine(uri).connect().close()
        except (SQLAlchemyError, ImportError) as error:
            raise UserError(f"tracking.uri: cannot open {uri}: {str(error).splitlines()[0]}") from None
    else:
        raise UserError(f"tracking.uri: {uri!r} is not an MLflow URI; allowed: http(s)://…, {', '.join(DATABASES)}")


def experiments(uri: str) -> dict[str, str]:
    """The experiments of a store: name -> id, newest first."""
    import mlflow

    return {e.name: e.experiment_id for e in mlflow.MlflowClient(uri).search_experiments() if e.experiment_id != "0"}


class Connection:
    """One experiment of an MLflow store. MLflow, which takes seconds to import, is imported when something is to be sent."""

    def __init__(self, uri: str, experiment: str, out: str) -> None:
        self.uri = uri
        self.experiment = experiment
        self.out = out

    @cached_property
    def client(self) -> Any:
        """The client of the store."""
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # besides the client: `create_external_model` knows only the URI of the process
        mlflow.set_tracking_uri(self.uri)
        return mlflow.MlflowClient(self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """The id of the experiment, which is made where it is not there."""
        found = self.client.get_experiment_by_name(self.experiment)
        if found:
            return str(found.experiment_id)
        artifacts = None
        # a server has an artifact store of its own; a bare database would put artifacts into the current folder
        if self.uri.startswith(DATABASES):
            artifacts = f"file://{local_folder(self.out)}/mlartifacts"
        return str(self.client.create_experiment(self.experiment, artifacts))

    def connect(self) -> None:
        """Import MLflow and make the experiment, where neither is done. Raises what MLflow raises."""
        _ = self.experiment_id

    def present_ids(self) -> set[str]:
        """The ids of the runs and models that the experiment has by now; empty where there is no such experiment."""
        # not through MLflow, whose import alone takes longer than all else of a start that has nothing to send
        if self.uri.startswith(SQLITE):
            return self._ids_in_file()
        if self.uri.startswith(DATABASES):
            return self._ids_in_database()
        return self._ids_on_server()

    def _ids_in_file(self) -> set[str]:
        try:
            # read only: a database that is not there is not made by asking
            file = Path(self.uri.removeprefix(SQLITE)).absolute().as_uri()
            with contextlib.closing(sqlite3.connect(f"{file}?mode=ro", uri=True)) as connected:
                rows = connected.execute(ACTIVE_IDS, {"experiment": self.experiment})
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
