"""The runs of a search: one for the whole, below it one for each trial, whatever became of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from orchestrator.store.events import SequenceFinished
from orchestrator.store.journal import Journal
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import (
    SearchFinished,
    SearchFrozen,
    SearchStarted,
    TrialEnded,
    TrialReopened,
    TrialSuggested,
)
from orchestrator.tracking import MlflowSync
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.notes import Notes
from orchestrator.tracking.runs import Runs
from orchestrator.tracking.search_runs import SearchRuns
from tests.orchestrator.tracking.mlflow_runs import runs

SECTION = {"holdout": "tasks", "searcher": "random", "scheduler": "fifo", "select": "final"}
STARTED = SearchStarted(config={"search": SECTION}, time=100)
TRIAL = {"definition": "0123456789", "method": "ft"}


def ended(number: int, status: str, **changes: Any) -> TrialEnded:
    """How a trial ended, with the given values of its result."""
    result = {"status": status, "tasks": 3, "score": 41.5, "metrics": {}, "cost": {"seconds": 7.0}, "reason": ""}
    return TrialEnded(**TRIAL, number=number, time=300, result=result | changes)


def suggested(number: int) -> TrialSuggested:
    return TrialSuggested(**TRIAL, number=number, time=200, values={"training.lr": 1e-3, "migu.ratio": 0.5}, notes={})


@pytest.fixture
def copied(store: str, tmp_path: Path) -> Callable[..., Mapping[str, Run]]:
    """Copies a search's journal of those events, as two processes would; gives its runs by their names."""

    def copy_and_find(*events: Event) -> Mapping[str, Run]:
        folder = tmp_path / "experiments" / "mine" / "search"
        for event in events:
            Journal(folder, "search").append(event)
        for _ in range(2):
            connection = Connection(store, str(tmp_path), str(tmp_path))
            # without a note, so that the second finds what the first one made
            shutil.rmtree(tmp_path / "tracking", ignore_errors=True)
            copy = SearchRuns(Runs(connection), folder, Notes(connection))
            copy.pull()
            copy.end()
        found = connection.client.search_runs([connection.experiment_id])
        by_name = {run.info.run_name: run for run in found}
        assert len(by_name) == len(found)
        return by_name

    return copy_and_find


def test_a_trial_hangs_below_its_search_with_its_values(copied: Callable[..., Mapping[str, Run]]) -> None:
    found = copied(STARTED, suggested(7))
    assert set(found) == {"mine: search", "mine-ft-007"}
    search = found["mine: search"]
    assert SECTION.items() <= search.data.tags.items()
    assert (search.info.status, search.info.start_time) == ("RUNNING", 100)
    trial = found["mine-ft-007"]
    assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert trial.data.tags["orchestrator.method"] == "ft"
    assert trial.data.params == {"method": "ft", "training.lr": "0.001", "migu.ratio": "0.5"}
    assert trial.info.start_time == 200


@pytest.mark.parametrize(("status", "shown"), [("finished", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")])
def test_how_a_trial_ended(status: str, shown: str, copied: Callable[..., Mapping[str, Run]]) -> None:
    found = copied(STARTED, suggested(0), ended(0, status, metrics={"aa": 41.5, "bwt": None, "fwt": float("nan")}))
    trial = found["mine-ft-000"]
    assert (trial.info.status, trial.info.end_time) == (shown, 300)
    assert trial.data.tags["orchestrator.status"] == status
    assert trial.data.metrics == {"score": 41.5, "tasks": 3, "aa": 41.5, "cost/seconds": 7.0}
    assert "orchestrator.failure" not in trial.data.tags


def test_a_trial_that_failed_has_no_score_and_a_reason_that_fits(copied: Callable[..., Mapping[str, Run]]) -> None:
    found = copied(
        STARTED, suggested(0), ended(0, "failed", score=None, reason="x" * 501), TrialReopened(**TRIAL, number=0)
    )
    trial = found["mine-ft-000"]
    assert trial.data.tags["orchestrator.failure"] == "x" * 500
    assert "score" not in trial.data.metrics
    assert trial.info.status == "FAILED", "until it has ended anew"


def test_what_was_frozen_is_kept_with_the_search(
    store: str, tmp_path: Path, copied: Callable[..., Mapping[str, Run]]
) -> None:
    folder = tmp_path / "experiments" / "mine" / "search"
    folder.mkdir(parents=True)
    (folder / "chosen.yaml").write_text("lr: 1")
    # where the folder was before it was moved
    files = ["/where/it/was/chosen.yaml", "/where/it/was/deleted.png"]
    search = copied(STARTED, SearchFrozen(sha256="abc", files=files))["mine: search"]
    assert search.data.tags["orchestrator.chosen_sha256"] == "abc"
    artifacts = mlflow.MlflowClient(store).list_artifacts(search.info.run_id, "search")
    assert [artifact.path for artifact in artifacts] == ["search/chosen.yaml"]


def test_an_event_of_a_sequence_is_loud(copied: Callable[..., Mapping[str, Run]]) -> None:
    with pytest.raises(TypeError, match="event 'sequence_finished' is none of a search"):
        copied(STARTED, SequenceFinished())


def test_a_search_that_was_started_anew_runs_until_it_says_that_it_ended(
    copied: Callable[..., Mapping[str, Run]],
) -> None:
    again = STARTED.model_copy(update={"time": 500})
    search = copied(STARTED, SearchFinished(summary={"ft/runs_finished": 1}, time=400), again)["mine: search"]
    assert (search.info.status, search.data.metrics) == ("RUNNING", {"ft/runs_finished": 1})
    search = copied(SearchFinished(summary={"ft/runs_finished": 1}, time=600))["mine: search"]
    assert (search.info.status, search.info.end_time) == ("FINISHED", 600)


@pytest.mark.slow
def test_a_search_with_a_failed_run_is_not_finished(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "half" / "search"
    journal = Journal(folder, "search")
    journal.append(SearchStarted(config={"search": SECTION}))
    states = []
    for count, is_complete in ((1, False), (2, True)):
        journal.append(SearchFinished(summary={"ft/runs_finished": count}, is_complete=is_complete))
        copy = MlflowSync(store, "test", str(tmp_path), folder)
        assert copy.close(60), copy.trouble
        (run,) = [r for r in runs(store) if r.info.run_name == "half: search"]
        states.append((run.info.status, run.data.metrics["ft/runs_finished"]))
    assert states == [("FAILED", 1.0), ("FINISHED", 2.0)]
