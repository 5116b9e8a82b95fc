"""MLflow as a mirror of the journals. Training never waits for it, and nothing is only there.

Every run, model and metric has an identity that follows from the sequence, so reading a journal twice changes nothing:
runs are found by their tags, models by their key, and a metric with the same key, step, value and time is stored once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from orchestrator import logs
from orchestrator.errors import UserError
from orchestrator.tracking.parent_runs import ParentRuns
from orchestrator.tracking.search_runs import SearchRuns
from orchestrator.tracking.sequence_runs import SequenceRuns

DATABASES = ("sqlite:///", "postgresql", "mysql", "mssql")


def check_uri(uri: str) -> None:
    """Raises UserError where a tracking server does not answer, or the URI is none."""
    if uri.startswith(("http://", "https://")):
        import requests

        try:
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


class MlflowSync:
    """A thread that reads journals and writes to MLflow, until it is closed and has read all."""

    def __init__(self, uri: str, experiment: str, out: str, search: Path | None = None) -> None:
        self.uri, self.experiment, self.out, self.search = uri, experiment, out, search
        self.sequences: dict[str, None] = {}  # in the order in which they came
        self.trouble = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def follow(self, sequences: Iterable[str]) -> None:
        """Copy the journals of these sequences too, by their ids."""
        self.sequences |= dict.fromkeys(sequences)

    def close(self, timeout: float) -> bool:
        """Copy the rest; False if that did not succeed in time. What is missing is copied when the command is run again."""
        self._closing.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self.trouble

    def _work(self) -> None:
        above: ParentRuns | None = None
        runs: dict[str, SequenceRuns] = {}
        search: SearchRuns | None = None
        attempts_after_close = 0
        while True:
            closing = self._closing.is_set()
            try:
                if above is None:
                    above, runs = self._connect(), {}
                    search = SearchRuns(above, self.search) if self.search else None
                if search:
                    search.pull()
                for sequence in list(self.sequences):
                    if sequence not in runs:
                        runs[sequence] = SequenceRuns(above, self.out, sequence)
                    runs[sequence].pull()
                self.trouble = ""
                if closing:
                    return
            except Exception as error:  # whatever MLflow, its database or the network raise, the journal has it all
                trouble = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                # it tries again each second: the same trouble is written once
                if trouble != self.trouble:
                    logs.write_failure(logs.tracking_log(self.out), f"copying to MLflow at {self.uri}", error)
                self.trouble = trouble
                above = None  # what was half copied is copied again from the start: that changes nothing
                attempts_after_close += closing
                if attempts_after_close > 2:
                    return
            self._closing.wait(1.0)

    def _connect(self) -> ParentRuns:
        import logging

        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self.uri)
        client = mlflow.MlflowClient(self.uri)
        found = client.get_experiment_by_name(self.experiment)
        # a server has an artifact store of its own; a bare database would put artifacts into the current folder
        artifacts = f"file://{self.out}/mlartifacts" if self.uri.startswith(DATABASES) else None
        experiment_id = found.experiment_id if found else client.create_experiment(self.experiment, artifacts)
        return ParentRuns(client, experiment_id)
