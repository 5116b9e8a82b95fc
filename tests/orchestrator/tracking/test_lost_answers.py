"""A server that did what was asked and whose answer is lost: nothing is there twice, and everything is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from orchestrator.tracking import MlflowSync
from tests.orchestrator.tracking.journals import begun, ended, write
from tests.orchestrator.tracking.unreliable import WRITES, Loss, Proxy, mlflow_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Before a server of this module."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as port:
        proxy = Proxy(port)
        yield proxy
        proxy.shutdown()


@pytest.mark.parametrize("how", ["closed", "504"])
def test_nothing_is_there_twice_and_everything_is_there(
    how: Loss, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of each kind of request the first answer is lost, and that to the second run too."""
    monkeypatch.setattr("orchestrator.tracking.sync.PAUSE_SECONDS", 0.05)
    start, *others = begun()
    data = {"task": "a", "train_sha256": "0" * 64, "sizes": {}, "dropped_rows": {}, "source": {}}
    write(tmp_path, [start.model_copy(update={"data": [data]}), *others, *ended()])
    proxy.how = how
    proxy.losses = dict.fromkeys(WRITES.values(), 1) | {WRITES["run"]: 2}
    proxy.lost.clear()
    sync = MlflowSync(proxy.uri, how, str(tmp_path))
    sync.follow(["s"])
    assert sync.close(120), sync.trouble
    assert set(proxy.lost) == set(WRITES.values()), "each was asked, and lost"
    client = mlflow.MlflowClient(proxy.uri)
    experiment = client.get_experiment_by_name(how)
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["orchestrator.task_id"] for run in runs) == ["-1", "0"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.status == "READY"
    (task,) = [run for run in runs if run.data.tags["orchestrator.task_id"] == "0"]
    assert [output.model_id for output in task.outputs.model_outputs] == [model.model_id]
    (whole,) = [run for run in runs if run is not task]
    assert len(whole.inputs.dataset_inputs) == 1
    assert {file.path for file in client.list_artifacts(whole.info.run_id)} >= {"config.yaml", "data.json"}
    for run, key, steps in ((task, "loss", [1, 2, 3]), (whole, "accuracy/0", [0, 1]), (whole, "system/cpu", [0, 1])):
        history = client.get_metric_history(run.info.run_id, key)
        assert sorted(metric.step for metric in history) == steps
    assert capfd.readouterr().out == "", "a program reads stdout"
