"""How far a journal was copied: a second start sends nothing, and whatever is missing is sent all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from orchestrator.store.events import SystemSample
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.search_events import SearchStarted
from tests.orchestrator.store.examples import step
from tests.orchestrator.tracking.journals import Copied, begun, ended, write


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
