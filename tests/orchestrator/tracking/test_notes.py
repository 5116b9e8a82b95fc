"""How far a journal was copied: a second start sends nothing, and whatever is missing is sent all the same."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.store.events import SequenceFinished, SystemSample, TaskStarted
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import SearchStarted
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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: its schema takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def copied(tmp_path: Path, template: Path) -> Copied:
    shutil.copy(template, tmp_path / "mlflow.db")
    return Copied(tmp_path)


def test_a_second_start_writes_nothing(copied: Copied) -> None:
    """Neither a row nor a file; nor does it draw a matrix again."""
    folder = copied.out / "experiments" / "mine" / "search"
    Journal(folder, "search").append(SearchStarted(config={"search": dict.fromkeys(("holdout", "searcher"), "x")
        | {"scheduler": "fifo", "select": "final"}}))  # fmt: skip
    write(copied.out, [*begun(), *ended()])
    copied.copy(search=folder)
    assert {key for key, *_ in copied.rows()["metrics"]} >= {"loss", "aa", "accuracy/0", "system/cpu"}
    assert len(copied.rows()["runs"]) == 3
    before = copied.state()
    assert any(file.endswith(".png") for file, _ in before[1])
    copied.copy(search=folder)
    assert copied.state() == before


def test_a_second_start_does_not_import_mlflow(copied: Copied) -> None:
    write(copied.out, [*begun(), *ended()])
    copied.copy()
    assert copied.copy_in_new_process() == ["True", "False"]
    write(copied.out, [SystemSample(values={"cpu": 9})])
    assert copied.copy_in_new_process() == ["True", "True"]


def test_what_is_new_is_added_to_what_was_copied(copied: Copied, tmp_path_factory: pytest.TempPathFactory) -> None:
    """To the same rows as of a copy that reads everything at once; and what was there is not sent a second time."""
    write(copied.out, begun())
    copied.copy()
    (folder,) = (copied.out / "mlartifacts").rglob("diagnostics")
    drawn = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    write(copied.out, ended())
    copied.copy()
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == drawn
    at_once = Copied(tmp_path_factory.mktemp("once"))
    write(at_once.out, [*begun(), *ended()])
    at_once.copy()
    assert copied.rows() == at_once.rows()
    samples = [(step, value) for key, value, step, _ in copied.rows()["metrics"] if key == "system/cpu"]
    assert samples == [(0, 5), (1, 7)]


def test_a_store_that_was_deleted_is_filled_again(copied: Copied, template: Path) -> None:
    write(copied.out, [*begun(), *ended()])
    copied.copy()
    before = copied.rows()
    copied.database.unlink()
    shutil.copy(template, copied.database)
    # in another process: MLflow holds a database open that it once knew
    copied.copy_in_new_process()
    assert copied.rows() == before
    other = Copied(copied.out)
    other.database = copied.out / "other.db"
    shutil.copy(template, other.database)
    other.uri = f"sqlite:///{other.database}"
    copied.copy(other.uri)
    assert other.rows() == before, "nor does another store take one's word for the first one"
    state = other.state()
    copied.copy()
    other.copy()
    assert other.state() == state, "nor does the one make the other forget"


@pytest.mark.parametrize("what", ["task's run", "sequence's run", "model"])
def test_what_somebody_deleted_is_made_again(what: str, copied: Copied) -> None:
    write(copied.out, [*begun(), *ended()])
    copied.copy()
    before = copied.rows()
    client = mlflow.MlflowClient(copied.uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment
    if what == "model":
        (model,) = client.search_logged_models([experiment.experiment_id])
        client.delete_logged_model(model.model_id)
    else:
        of_whole = "=" if what == "sequence's run" else "!="
        query = f"tags.`orchestrator.task_id` {of_whole} '-1'"
        (run,) = client.search_runs([experiment.experiment_id], query)
        client.delete_run(run.info.run_id)
    assert copied.rows() != before
    copied.copy()
    assert copied.rows() == before


def test_a_journal_that_was_mended_is_copied_from_its_start(copied: Copied) -> None:
    """A damaged line that was put right since: its step comes to those that are there."""
    events = [*begun(), *ended()]
    write(copied.out, events)
    path = journal_folder(copied.out, "s") / "train.jsonl"
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    # as long as the line was: nothing but the content tells
    lines[4] = lines[4].replace(b'"step": 2', b'"step": 9')
    path.write_bytes(b"".join(lines))
    copied.copy()
    steps = {step for key, _, step, _ in copied.rows()["metrics"] if key == "loss"}
    assert steps == {1, 3}
    path.write_bytes(sound)
    copied.copy()
    steps = {step for key, _, step, _ in copied.rows()["metrics"] if key == "loss"}
    assert steps == {1, 2, 3}


def test_a_journal_that_was_cut_goes_on_with_what_comes_then(copied: Copied) -> None:
    """It is shorter than what was copied of it, and grows past that by lines that were never read."""
    write(copied.out, begun())
    copied.copy()
    path = journal_folder(copied.out, "s") / "train.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    more = [step(0, number).model_copy(update={"time": 600 + number}) for number in range(4, 12)]
    write(copied.out, [*more, *ended()])
    assert path.stat().st_size > sum(map(len, lines))
    copied.copy()
    steps = {step for key, _, step, _ in copied.rows()["metrics"] if key == "loss"}
    assert steps == set(range(1, 12))


def test_a_note_that_is_damaged_is_none(copied: Copied) -> None:
    write(copied.out, begun())
    copied.copy()
    before = copied.rows()
    (note,) = (copied.out / "tracking").rglob("s.json")
    note.write_bytes(note.read_bytes().replace(b"train", b"trial"))
    write(copied.out, ended())
    copied.copy()
    assert len(copied.rows()["metrics"]) > len(before["metrics"])
    assert len(copied.rows()["runs"]) == len(before["runs"])
