"""The copy of the journals in MLflow. Training never waits for it, and nothing is only there.

Every run, model and metric has an identity that follows from the sequence, so reading a journal twice changes nothing:
runs and models are found by their tags, and a metric with the same key, step, value and time is stored once.
"""

from __future__ import annotations

import logging
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


class MlflowSync:
    """A thread that reads journals and writes to MLflow, until it is closed and has read all."""

    def __init__(self, uri: str, experiment: str, out: str, search: Path | None = None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.out = out
        self.search = search
        self.sequences: dict[str, None] = {}  # in the order in which they came
        self.trouble = ""
        self._closing = threading.Event()
        # a daemon: a server that hangs must not keep the command from ending
        self._thread = threading.Thread(target=self._work, name="mlflow-sync", daemon=True)
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
        copies: _Copies | None = None
        attempts_after_close = 0
        while True:
            # asked before copying: what was recorded before the closing is then copied once more
            closing = self._closing.is_set()
            try:
                copies = copies or _Copies(self._connect(), self.out, self.search)
                copies.pull(list(self.sequences))
                self.trouble = ""
                if closing:
                    return
            # whatever MLflow, its database or the network raise, the journals have it all
            except Exception as error:
                trouble = _one_line(error)
                # it tries again each second: the same trouble is written once
                if trouble != self.trouble:
                    logs.write_failure(logs.tracking_log(self.out), f"copying to MLflow at {self.uri}", error)
                self.trouble = trouble
                # what was half copied is copied again from the start: that changes nothing
                copies = None
                if closing:
                    attempts_after_close += 1
                if attempts_after_close > 2:
                    return
            # not `sleep`: closing wakes it at once
            self._closing.wait(1.0)

    def _connect(self) -> ParentRuns:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # besides the client: `create_external_model` knows only the URI of the process
        mlflow.set_tracking_uri(self.uri)
        client = mlflow.MlflowClient(self.uri)
        found = client.get_experiment_by_name(self.experiment)
        if found:
            return ParentRuns(client, found.experiment_id)
        artifacts = None
        # a server has an artifact store of its own; a bare database would put artifacts into the current folder
        if self.uri.startswith(DATABASES):
            artifacts = f"file://{self.out}/mlartifacts"
        return ParentRuns(client, client.create_experiment(self.experiment, artifacts))


class _Copies:
    """The copies of journals in one experiment of MLflow, each of which knows how far it is."""

    def __init__(self, runs: ParentRuns, out: str, search_folder: Path | None) -> None:
        self.runs = runs
        self.out = out
        self.search: SearchRuns | None = None
        if search_folder:
            self.search = SearchRuns(runs, search_folder)
        self.by_sequence: dict[str, SequenceRuns] = {}

    def pull(self, sequence_ids: list[str]) -> None:
        """Copy what is new; the search first, below whose runs the sequences' hang."""
        if self.search:
            self.search.pull()
        for sequence_id in sequence_ids:
            if sequence_id not in self.by_sequence:
                self.by_sequence[sequence_id] = SequenceRuns(self.runs, self.out, sequence_id)
            self.by_sequence[sequence_id].pull()


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
