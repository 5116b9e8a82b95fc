"""A journal written by hand, and the copy of it in an MLflow store of its own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.events import SequenceFinished, SystemSample, TaskStarted
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.tracking import MlflowSync
from tests.orchestrator.store.examples import checkpoint, score, started, step

DESCRIBED = {"method": {"name": "mine"}, "stream": {"name": "papers"}, "seed": 3}


def begun() -> list[Event]:
    """A sequence of one task, with a list that its method tells, and a sample of the machine's load."""
    told = {"diagnostics": {"share": [[0.5]]}, "time": 300}
    return [
        started("a").model_copy(update={"sequence": DESCRIBED, "time": 100}),
        TaskStarted(task_id=0, task="a", steps=3, reused=False, time=200),
        SystemSample(values={"cpu": 5}, time=205),
        step(0, 1).model_copy(update={"time": 210}),
        step(0, 2).model_copy(update={"time": 220}),
        step(0, 3).model_copy(update={"time": 230}),
        checkpoint(0).model_copy(update=told),
        score(0, 0, 10.0).model_copy(update={"time": 400}),
    ]


def ended() -> list[Event]:
    return [
        SystemSample(values={"cpu": 7}, time=405),
        score(1, 0, 70.0).model_copy(update={"time": 410}),
        SequenceFinished(time=500),
    ]


def write(out: Path, events: Sequence[Event]) -> None:
    Journal(journal_folder(out, "s")).append_all(events)


class Copied:
    """A store of its own, and what is in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.database = out / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"

    def copy(self, uri: str = "", search: Path | None = None) -> None:
        """What a command does that is given once more."""
        sync = MlflowSync(uri or self.uri, "test", str(self.out), search)
        sync.follow(["s"])
        assert sync.close(60), sync.trouble

    def copy_in_new_process(self) -> list[str]:
        """The same in a process of its own; gives whether it was in time, and whether MLflow was imported."""
        program = (
            "import sys\nfrom orchestrator.tracking import MlflowSync\n"
            f"sync = MlflowSync({self.uri!r}, 'test', {str(self.out)!r})\nsync.follow(['s'])\n"
            "print(sync.close(60), 'mlflow' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.split()

    def rows(self) -> dict[str, list[Any]]:
        """The rows of every table that the copy writes to, but for ids, which are drawn at random."""
        queries = {
            "runs": "SELECT name, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active'",
            "metrics": "SELECT m.key, m.value, m.step, m.timestamp FROM metrics m JOIN runs r USING (run_uuid)"
            " WHERE r.lifecycle_stage = 'active'",
            "models": "SELECT name FROM logged_models WHERE lifecycle_stage = 'active'",
        }
        with sqlite3.connect(self.database) as connection:
            return {table: sorted(connection.execute(query)) for table, query in queries.items()}

    def state(self) -> tuple[bytes, list[Any]]:
        """All bytes of the database, and when each artifact was written."""
        files = sorted((self.out / "mlartifacts").rglob("*.*"))
        return self.database.read_bytes(), [(str(file), file.stat().st_mtime_ns) for file in files]
