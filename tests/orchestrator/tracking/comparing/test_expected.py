"""What MLflow should have is what the copy makes."""

from __future__ import annotations

from pathlib import Path

import mlflow

from orchestrator.store.journal import Journal
from orchestrator.store.records.event import Event
from orchestrator.tracking.comparing.expected import expected_runs
from tests.orchestrator.tracking.journals import Copied
from tests.orchestrator.tracking.test_search_runs import STARTED, ended, suggested


def test_it_is_what_a_copy_makes(whole: Copied) -> None:
    """Every run with its status and end, every point and every parameter."""
    expected = expected_runs(str(whole.out), ["s"], None)
    assert set(expected) == {("s", "-1", ""), ("s", "0", "")}
    runs = sorted((run.name, run.status, run.ended) for run in expected.values())
    assert runs == [(name, status, end) for name, status, _, end in whole.rows()["runs"]]
    points: list[tuple[str, float, int, int]] = []
    for run in expected.values():
        for key, of_key in run.points.items():
            points += [(key, value, step, time) for step, time, value in of_key]
    assert sorted(points) == whole.rows()["metrics"]
    client = mlflow.MlflowClient(whole.uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment
    for found in client.search_runs([experiment.experiment_id]):
        wanted = expected["s", found.data.tags["orchestrator.task_id"], ""]
        assert wanted.params == found.data.params
        ours = {key for key in found.data.tags if key.startswith("orchestrator.")}
        assert ours == {*wanted.tags, "orchestrator.described"} & ours
        assert (wanted.parent is None) == ("mlflow.parentRunId" not in found.data.tags)
        assert (wanted.model is None) == (not found.outputs.model_outputs)


def test_a_search_has_its_trials_below_it(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "mine" / "search"
    events: list[Event] = [STARTED, suggested(7), ended(7, "stopped")]
    Journal(folder, "search").append_all(events)
    search, trial = expected_runs(str(tmp_path), [], folder).items()
    assert search[0] == ("", "", "search:mine")
    assert (trial[1].name, trial[1].parent, trial[1].status) == ("mine-ft-007", search[0], "KILLED")
    assert trial[1].points["score"] == {(0, 300, 41.5)}
