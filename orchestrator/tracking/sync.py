"""The copy of the journals in MLflow. Training never waits for it, and nothing is only there.

Every run, model and metric has an identity that follows from the sequence, so reading a journal twice changes nothing:
runs and models are found by their tags, and a metric with the same key, step, value and time is stored once. How far a
journal was copied is noted (see `notes`), so that the next command goes on from there and sends nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from orchestrator import logs
from orchestrator.storage.places import seconds_between_looks
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.notes import Notes
from orchestrator.tracking.parent_runs import ParentRuns
from orchestrator.tracking.search_runs import SearchRuns
from orchestrator.tracking.sequence_runs import SequenceRuns


class MlflowSync:
    """A thread that reads journals and writes to MLflow, until it is closed and has read all."""

    def __init__(self, uri: str, experiment: str, out: str, search: Path | None = None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.out = out
        self.search = search
        self.sequences: dict[str, None] = {}  # in the order in which they came
        self.trouble = ""
        self._expects_news = threading.Event()
        self._closing = threading.Event()
        # a daemon: a server that hangs must not keep the command from ending
        self._thread = threading.Thread(target=self._work, name="mlflow-sync", daemon=True)
        self._thread.start()

    def follow(self, sequences: Iterable[str]) -> None:
        """Copy the journals of these sequences too, by their ids."""
        self.sequences |= dict.fromkeys(sequences)

    def expect_news(self) -> None:
        """There will be something to copy: connect at once, which takes seconds, before the workers need the CPUs."""
        self._expects_news.set()

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
                copies = copies or _Copies(Connection(self.uri, self.experiment, self.out), self.search)
                if self._expects_news.is_set():
                    copies.connection.connect()
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
                # what was half copied is copied again from where it was last noted: that changes nothing
                copies = None
                if closing:
                    attempts_after_close += 1
                if attempts_after_close > 2:
                    return
            # not `sleep`: closing wakes it at once
            self._closing.wait(seconds_between_looks(self.out, 1.0))


class _Copies:
    """The copies of journals in one experiment of MLflow, each of which knows how far it is."""

    def __init__(self, connection: Connection, search_folder: Path | None) -> None:
        self.connection = connection
        self.out = connection.out
        self.runs = ParentRuns(connection)
        self.notes = Notes(connection)
        self.search: SearchRuns | None = None
        if search_folder:
            self.search = SearchRuns(self.runs, search_folder, self.notes)
        self.by_sequence: dict[str, SequenceRuns] = {}

    def pull(self, sequence_ids: list[str]) -> None:
        """Copy what is new; the search first, below whose runs the sequences' hang, and how it ended last."""
        if self.search:
            self.search.pull()
        for sequence_id in sequence_ids:
            if sequence_id not in self.by_sequence:
                self.by_sequence[sequence_id] = SequenceRuns(self.runs, self.out, sequence_id, self.notes)
            self.by_sequence[sequence_id].pull()
        if self.search:
            self.search.end()


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
