"""Whole experiments through the command line on real Ray clusters, as a user runs them.

Every cluster has a temporary folder of its own and listens on loopback; the ports are chosen free.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from orchestrator.planning.experiment import open_experiment
from orchestrator.planning.recovery import recovered_view
from orchestrator.storage.lines import files_of_lines
from orchestrator.storage.places import folder_at
from orchestrator.store.journal import journal_folder
from orchestrator.store.view import View
from tests.conftest import SMALL
from tests.steps import losses_of

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow
SETTINGS = [
    f"model.overrides={json.dumps(SMALL['tiny-t5'])}",
    "streams.max_train=400",
    "streams.max_test=20",
    "training.epochs=1",
    "training.global_batch=8",
    "training.micro_batch=4",
    "training.lr=5e-4",
]  # fifty steps a task, at the recipe's rate


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment(ray_folder: Path) -> dict[str, str]:
    """For local clusters of the command itself."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**clean, "RAY_TMPDIR": str(ray_folder), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def command(out: Path | str, *settings: str) -> list[str]:
    """`orchestrator run` with the small settings."""
    flags = [flag for s in (*SETTINGS, *settings) for flag in ("--set", s)]
    return [sys.executable, "-m", "orchestrator", "run", "embedded", "--out", str(out), "--json", *flags]


def run(out: Path | str, environment: dict[str, str], *settings: str, code: int = 0) -> dict[str, Any]:
    """Run to the end; gives the JSON object."""
    done = subprocess.run(command(out, *settings), env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def views(out: Path) -> list[View]:
    return [recovered_view(sequence) for sequence in open_experiment("embedded", str(out)).sequences]


def test_an_experiment_with_a_failing_sequence_and_then_two_workers(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    wild = "{name: wild, tuning: full, training: {lr: 1000, clip: null, weight_decay: 1000}}"
    result = run(tmp_path / "one", environment, f"methods=[ft, ft+migu, ft+random, {wild}]", code=1)
    assert set(result) >= {"experiment", "sequences", "mlflow", "out"}
    *good, failed = result["sequences"]
    assert [s["method"] for s in good] == ["ft", "ft+migu", "ft+random"]
    for sequence in good:
        assert sequence["status"] == "finished"
        matrix = np.array(sequence["accuracy_matrix"], dtype=float)
        assert matrix.shape == (6, 5)
        assert not np.isnan(matrix).any()
        assert sequence["aa"] == pytest.approx(matrix[-1].mean())
        assert sequence["bwt"] == pytest.approx(np.mean([matrix[5, j] - matrix[j + 1, j] for j in range(4)]))
        assert sequence["learning_accuracy"] == pytest.approx(np.mean([matrix[j + 1, j] for j in range(5)]))
    assert failed["status"] == "failed"
    assert failed["reason"].endswith("is nan in task 'reviews', step 2")
    trained = [c for v in views(tmp_path / "one") for t in v.by_task.values() if (c := t.checkpoint) and not c.reused]
    assert len(trained) == 1 + 3 * 4, "the first task is trained once for all three"

    client = mlflow.MlflowClient(result["mlflow"])
    experiment = client.get_experiment_by_name("embedded")
    assert experiment
    parents = [r for r in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in r.data.tags]
    assert sorted(r.info.status for r in parents) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert any(key.startswith("system/") for r in parents for key in r.data.metrics)

    two = run(tmp_path / "two", environment, "methods=[ft, ft+migu, ft+random]", "scaling.workers=2")
    # 50 steps are the first task, in which MIGU does not mask yet: no row's choice can tip over by rounding
    for a, b, one, other in zip(good, two["sequences"], views(tmp_path / "one"), views(tmp_path / "two"), strict=False):
        assert (one.start.workers, other.start.workers) == (1, 2)  # type: ignore[index]
        np.testing.assert_allclose(
            losses_of(tmp_path / "two", other.id)[:50], losses_of(tmp_path / "one", one.id)[:50], rtol=1e-4
        )
        np.testing.assert_allclose(
            losses_of(tmp_path / "two", other.id), losses_of(tmp_path / "one", one.id), rtol=2e-2
        )
        assert abs(a["aa"] - b["aa"]) <= 2.0


def test_scoring_beside_training_and_in_an_object_store_gives_the_same_scores(
    bucket: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    inline = run(tmp_path / "a", environment, "methods=[ft]", "evaluation.placement=inline")
    beside = run(f"{bucket}/b", environment, "methods=[ft]", "evaluation.placement=async")
    assert beside["out"] == f"{bucket}/b"
    assert beside["sequences"][0]["accuracy_matrix"] == inline["sequences"][0]["accuracy_matrix"]
    by_writer = {"train": "", "evaluate": ""}
    for file, _ in files_of_lines(journal_folder(beside["out"], beside["sequences"][0]["id"]), first="train"):
        by_writer[file.name.split(".")[0]] += file.read_text()
    assert '"score"' in by_writer["evaluate"] and '"score"' not in by_writer["train"]
    # all that a worker logged is there when it is through
    log = folder_at(beside["out"]) / "logs" / beside["sequences"][0]["id"] / "worker-0.log"
    assert "worker 0 of 1 is done" in log.read_text()
    client = mlflow.MlflowClient(beside["mlflow"])
    experiment = client.get_experiment_by_name("embedded")
    assert experiment and len(client.search_runs([experiment.experiment_id])) == 1 + 5


def test_a_driver_that_is_stopped_leaves_in_good_order_and_goes_on(tmp_path: Path, environment: dict[str, str]) -> None:
    arguments = command(tmp_path, "methods=[ft]", "training.epochs=3")
    driver = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # in the second task: right after the first one the last of its lines were printed
    wait_for(lambda: list((tmp_path / "checkpoints").glob("[!.]*")), 400)
    # for which Ray has a handler of its own
    driver.send_signal(signal.SIGTERM)
    stdout, stderr = driver.communicate(timeout=60)
    assert (driver.returncode, stdout) == (143, "")
    lines = stderr.splitlines()
    assert lines[-1] == "stopped; the same command goes on from here"
    # a line of the clock and what goes on, each; none of Ray's, no stack
    assert all(re.match(r"\d\d:\d\d ", line) for line in lines[:-1]), stderr
    result = run(tmp_path, environment, "methods=[ft]", "training.epochs=3")
    assert result["sequences"][0]["status"] == "finished"
    (log,) = (tmp_path / "logs").glob("*/worker-0.log")
    left = re.search(r"left (task '\w+') after step (\d+)", log.read_text())
    assert left, "it was asked to leave amid a task"
    assert f"{left[1]} goes on after step {left[2]}" in log.read_text()


def wait_for(condition: Any, seconds: float) -> None:
    """Poll until true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@pytest.fixture
def head(ray_folder: Path) -> Iterator[dict[str, str]]:
    """A Ray head of its own with token authentication; gives the environment of a user of it."""
    gcs, dashboard, agent, client = free_ports(4)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    user = {**clean, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "COLUMNS": "120"}
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
             f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", "--num-cpus=2",
             f"--temp-dir={ray_folder}"]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    with (ray_folder.with_suffix(".log")).open("w") as log:
        process = subprocess.Popen(start, env={**user, "PATH": path}, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: is_listening(dashboard), 90)
            yield {**user, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        finally:
            end_group(process)
    ray_folder.with_suffix(".log").unlink()


def is_listening(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, and what it started."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_submitted_job_ends_in_mlflow(tmp_path: Path, head: dict[str, str]) -> None:
    """`ray job submit` to a head with token authentication; the finished sequence is then found in MLflow."""
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir", str(ROOT), "--",
              *command(tmp_path / "out", "methods=[ft+migu]")]  # fmt: skip
    done = None
    for _ in range(3):  # the dashboard answers before its job agent does
        done = subprocess.run(submit, env=head, capture_output=True, text=True, timeout=600)
        if done.returncode == 0 or "agent" not in done.stdout + done.stderr:
            break
        time.sleep(5)
    assert done
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    experiment = client.get_experiment_by_name("embedded")
    assert experiment
    parents = [r for r in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in r.data.tags]
    assert [(r.info.status, r.data.tags["orchestrator.method"]) for r in parents] == [("FINISHED", "ft+migu")]
    assert len(client.get_metric_history(parents[0].info.run_id, "aa")) == 5
