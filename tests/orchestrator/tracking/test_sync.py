"""The copy in a real MLflow store: complete, idempotent, and never in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.references import record_references
from orchestrator.report.results import results
from orchestrator.store.events import Event, SearchFinished, SearchStarted, SequenceFailed, Step
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.tracking import MlflowSync, check_uri
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config


def copy_to_mlflow(sequences: list[SequencePlan], uri: str) -> None:
    """Copy finished journals."""
    copy = MlflowSync(uri, "test", sequences[0].out)
    copy.follow(s.id for s in sequences)
    assert copy.close(60), copy.trouble


def runs(uri: str) -> list[Run]:
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment
    return list(
        client.search_runs([experiment.experiment_id], order_by=["attributes.start_time", "tags.mlflow.runName"])
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests of the file: its schema takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.mark.slow
def test_everything_is_there_and_a_second_copy_changes_nothing(
    store: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    sequence = sequence_of(methods=["ft+migu"])
    view = run_sequence(sequence)
    copy_to_mlflow([sequence], store)
    client = mlflow.MlflowClient(store)
    found = runs(store)
    (parent,) = [r for r in found if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.info.run_name for r in children) == [f"{i + 1} {t}" for i, t in enumerate(sequence.tasks)]
    assert {r.info.status for r in found} == {"FINISHED"}
    assert parent.data.params["method.plugins.0.settings.ratio"] == "0.3"
    assert parent.data.params["versions.torch"]
    assert {i.dataset.name for i in parent.inputs.dataset_inputs} == set(sequence.tasks)

    losses = client.get_metric_history(parent.info.run_id, "loss")
    assert [m.step for m in losses] == list(range(1, 16)), "three steps for each of five tasks, each once"
    assert losses[4].value == view.by_task[1].steps[2].loss
    for unit in ("steps", "tokens", "flops"):
        usage = client.get_metric_history(parent.info.run_id, f"train_{unit}")
        assert sum(m.value for m in usage) == view.usage(unit)
    scores = client.get_metric_history(parent.info.run_id, f"accuracy/{sequence.tasks[2]}")
    assert [(m.step, m.value) for m in scores] == [(row, view.scores[row, 2].score) for row in range(6)]
    averages = client.get_metric_history(parent.info.run_id, "aa")
    full = view.matrix()
    assert [m.value for m in averages] == pytest.approx([full[t, :t].mean() for t in range(1, 6)])
    for name in ("bwt", "forgetting"):
        assert [m.step for m in client.get_metric_history(parent.info.run_id, name)] == [2, 3, 4, 5]
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == [
        "config.yaml",
        "data.json",
        "diagnostics",
        "environment.json",
    ]
    plots = [f.path for f in client.list_artifacts(parent.info.run_id, "diagnostics") if f.path.endswith("png")]
    assert plots == [f"diagnostics/migu-overlap-after-{t}.png" for t in range(2, 6)]

    models = client.search_logged_models([parent.info.experiment_id], max_results=50)
    assert {m.params["key"] for m in models} == set(sequence.keys[1:])
    last = next(m for m in models if m.params["task_id"] == "4")
    assert Path(last.tags["checkpoint_uri"].removeprefix("file://")).is_dir()
    assert {m.key: m.value for m in last.metrics}["aa"] == pytest.approx(full[5].mean())

    before = snapshot(store)
    copy_to_mlflow([sequence], store)
    assert snapshot(store) == before


def snapshot(uri: str) -> dict[str, Any]:
    """Runs with the number of points of every metric."""
    client = mlflow.MlflowClient(uri)
    return {
        r.info.run_id: {key: len(client.get_metric_history(r.info.run_id, key)) for key in r.data.metrics}
        for r in runs(uri)
    }


@pytest.mark.slow
def test_a_resumed_sequence_goes_on_in_the_same_run(store: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(methods=[{"tuning": "lora", "name": "resumed"}])

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.task_id == 2 and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sequence(sequence, stop)
    copy_to_mlflow([sequence], store)
    run_sequence(sequence)
    copy_to_mlflow([sequence], store)
    mine = [r for r in runs(store) if r.data.tags["orchestrator.sequence"] == sequence.id]
    (parent,) = [r for r in mine if "mlflow.parentRunId" not in r.data.tags]
    assert len(mine) == 6
    losses = mlflow.MlflowClient(store).get_metric_history(parent.info.run_id, "loss")
    assert [m.step for m in losses] == list(range(1, 16))
    assert parent.info.status == "FINISHED"


def test_a_failure_is_shown(store: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(methods=[{"tuning": "full", "name": "failing"}])
    run_sequence(sequence)
    Journal(journal_folder(sequence.out, sequence.id)).append(SequenceFailed(reason="the loss is nan"))
    copy_to_mlflow([sequence], store)
    (parent,) = [
        r for r in runs(store)
        if r.data.tags["orchestrator.sequence"] == sequence.id and "mlflow.parentRunId" not in r.data.tags
    ]  # fmt: skip
    assert parent.info.status == "FAILED"
    assert parent.data.tags["orchestrator.failure"] == "the loss is nan"


def test_a_server_that_is_down_delays_the_copy_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = MlflowSync("http://127.0.0.1:9", "test", str(tmp_path))
    down.follow(["nothing"])
    assert not down.close(60)
    assert down.trouble


def test_uris_are_checked() -> None:
    with pytest.raises(UserError, match=r"no MLflow server answers at http://127.0.0.1:9"):
        check_uri("http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot open sqlite:////no/such/folder/x\.db"):
        check_uri("sqlite:////no/such/folder/x.db")
    with pytest.raises(UserError, match="'nonsense' is not an MLflow URI"):
        check_uri("nonsense")


def test_the_default_store_is_in_the_output_folder(tmp_path: Path) -> None:
    from tests.conftest import small_config

    experiment = Experiment(small_config(tmp_path), ())
    assert tracking_uri(experiment.config) == f"sqlite:///{tmp_path}/mlflow.db"
    experiment.save()
    assert json.loads((tmp_path / "experiments" / "small" / "sequences.json").read_text()) == []


def test_what_a_method_says_of_itself_is_in_metrics_and_plots(
    store: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    migu = {"name": "migu", "ratio": 0.5, "diagnostics": True}
    sequence = sequence_of(methods=[{"name": "watched", "tuning": "full", "plugins": [migu]}], stream={"first": 2})
    view = run_sequence(sequence)
    told = view.by_task[1].checkpoint.diagnostics  # type: ignore[index]
    copy_to_mlflow([sequence], store)
    client = mlflow.MlflowClient(store)
    mine = [r for r in runs(store) if r.data.tags.get("orchestrator.sequence") == sequence.id]
    (parent,) = [r for r in mine if "mlflow.parentRunId" not in r.data.tags]
    shares = told["migu/kept_share"]
    assert parent.data.metrics["migu/kept_share"] == pytest.approx(sum(shares) / len(shares))
    (second,) = [r for r in mine if r.info.run_name == f"2 {sequence.tasks[1]}"]
    layers = client.get_metric_history(second.info.run_id, "migu/kept_share")
    assert [m.value for m in sorted(layers, key=lambda m: m.step)] == pytest.approx(shares)
    assert second.data.metrics["migu/update_norm"] == pytest.approx(told["migu/update_norm"])
    files = {f.path for f in client.list_artifacts(parent.info.run_id, "diagnostics")}
    assert "diagnostics/migu-overlap-after-2.png" in files
    overlap = np.array(told["migu/overlap"])
    assert overlap.shape == (2, 2)
    assert np.diag(overlap) == pytest.approx([1, 1])


@pytest.mark.slow
def test_intransigence_comes_when_the_reference_run_is_known(store: str, tmp_path: Path) -> None:
    """In a copy that reads everything at once, in one that was there before, and once in both."""
    sequences = plan(small_config(tmp_path, methods=["ft", "joint"], stream={"first": 2}, seeds=[11]))
    for sequence in sequences:
        run_sequence(sequence)
    early = f"sqlite:///{tmp_path}/early.db"
    copy_to_mlflow(sequences, early)
    result = results(Experiment(small_config(tmp_path), tuple(sequences)))
    record_references(str(tmp_path), result["sequences"])
    expected = result["sequences"][0]["intransigence"]
    for uri in (early, store, store):
        copy_to_mlflow(sequences, uri)
        client = mlflow.MlflowClient(uri)
        (run,) = [r for r in runs(uri) if r.data.tags.get("orchestrator.reference_run") == "joint"]
        history = client.get_metric_history(run.info.run_id, "intransigence")
        assert [(metric.step, metric.value) for metric in history] == [(2, pytest.approx(expected))]


@pytest.mark.slow
def test_a_search_with_a_failed_run_is_not_finished(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "half" / "search"
    journal = Journal(folder, "search")
    section = {"holdout": "tasks", "searcher": "random", "scheduler": "fifo", "select": "final"}
    journal.append(SearchStarted(config={"search": section}))
    states = []
    for count, is_complete in ((1, False), (2, True)):
        journal.append(SearchFinished(summary={"ft/runs_finished": count}, is_complete=is_complete))
        copy = MlflowSync(store, "test", str(tmp_path), folder)
        assert copy.close(60), copy.trouble
        (run,) = [r for r in runs(store) if r.info.run_name == "half: search"]
        states.append((run.info.status, run.data.metrics["ft/runs_finished"]))
    assert states == [("FAILED", 1.0), ("FINISHED", 2.0)]
