"""Failures of groups on a real Ray cluster: what is tried again, what ends, and the line and the log that name the cause."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.util import placement_group_table

from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import Resources
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View, read_view
from tests.conftest import SMALL, small_config
from tests.orchestrator.cluster.conftest import Nodes
from tests.orchestrator.failing import hook_frame, user_line, write_plugin

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def failing(name: str, **settings: Any) -> dict[str, Any]:
    """A method whose plug-in fails."""
    return {"name": name, "tuning": "full", "plugins": [{"name": "groups_plugin.Broken", **settings}]}


def train(sequences: list[SequencePlan], scaling: ScalingConfig, cpus: float = 2) -> tuple[list[View], list[str]]:
    """Train sequences one after the other on the cluster. Returns what their journals say, and problems around it."""
    scaling = scaling.model_copy(update={"max_concurrent": 1})

    def watch() -> list[View]:
        return [read_view(sequence.out, sequence.id) for sequence in sequences]

    problems = run_on_cluster(sequences, scaling, Resources(cpus, 0), "inline", watch, "small")
    return watch(), problems


def log_of(view: View) -> Path:
    """The log that a sequence's failure names."""
    assert view.failed is not None and view.failed.log is not None
    return Path(view.failed.log)


def test_one_workers_error_ends_its_sequence_alone_and_the_user_finds_the_line_of_their_own_code(
    nodes: Nodes, tmp_path: Path
) -> None:
    """The others wait in an exchange for the worker that raised; nobody waits for the half-hour limit of that."""
    methods = [
        {"name": "wild", "tuning": "full", "training": {"lr": 1.0e20, "clip": None}},
        failing("one", hook="after_forward", rank=1, how="refuse"),
        failing("both", hook="on_batch"),
        "ft",
    ]
    began = time.monotonic()
    (wild, one, both, good), problems = train(
        plan(small_config(tmp_path, methods=methods, scaling={"workers": 2})), ScalingConfig(workers=2, max_failures=1)
    )
    assert time.monotonic() - began < 240, "somebody waited for a time limit"
    assert problems == []
    assert good.status == "finished"
    assert "is nan in task" in wild.failure
    assert len(one.attempts) == 1
    assert one.failure == "ValueError: no after_forward on worker 1"
    assert log_of(one).name == "worker-1.log"
    assert hook_frame(nodes.plugin, "after_forward") in log_of(one).read_text()
    # whichever worker fails first where both do
    assert both.failure == "KeyError: 'a bracket [red] of on_batch'"
    assert user_line(nodes.plugin) in log_of(both).read_text()
    assert list((tmp_path / "logs").glob("ray-small-*/*.out")), "Ray's own logs are copied beside it"
    # what all workers raise together leaves them in step: the same processes went on with the next sequence
    assert pids_of(tmp_path, wild) == pids_of(tmp_path, one) != pids_of(tmp_path, good)


def pids_of(out: Path, view: View) -> set[str]:
    """The processes that took a sequence up."""
    found: set[str] = set()
    for log in (out / "logs" / view.id).glob("worker-*.log"):
        found.update(re.findall(r"\(pid (\d+) .* takes", log.read_text()))
    return found


def test_a_group_whose_controller_is_killed_while_it_starts_is_started_again(nodes: Nodes, tmp_path: Path) -> None:
    """The controller's workers are reserved all CPUs, and stay so after its death unless somebody gives them back."""
    sequences = plan(small_config(tmp_path, methods=["ft"], scaling={"workers": 2}))
    before = set(placement_group_table())
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for name, table in placement_group_table().items():
                if name not in before and table["state"] == "CREATED":
                    killed.extend(processes(nodes, "ray::TrainController"))
                    os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    (view,), problems = train(sequences, ScalingConfig(workers=2, max_failures=1))
    killer.join(10)
    assert len(killed) == 1
    assert problems == []
    assert view.status == "finished"


def processes(nodes: Nodes, title: str) -> list[int]:
    """The cluster's processes whose title begins so."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        command = process.info["cmdline"] or [""]
        if command[0].startswith(title) and str(nodes.plugin.parent) in str(process.info["environ"]):
            found.append(process.pid)
    return found


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_worker_leaves_a_line_and_rays_logs(tmp_path: Path, ray_folder: Path) -> None:
    plugin_file = write_plugin(tmp_path / "users", "my_plugin")
    done = run(
        tmp_path / "out", ray_folder, plugin_file.parent, "{name: my_plugin.Broken, hook: after_forward, how: kill}"
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "its workers died 2 times (scaling.max_failures is 1); the last time: worker 0 (pid " in done.stdout
    assert "ended without a word (killed, out of memory, or crashed): SYSTEM_ERROR" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "(raylet)" not in done.stdout, "Ray's own paragraph stands beside it"
    found = re.search(r"^mine, seed 42.*; log: (\S+)$", done.stdout, flags=re.M)
    assert found, done.stdout
    log = Path(found[1])
    assert log.parent.name.startswith("ray-embedded-")
    assert "Worker exit type: SYSTEM_ERROR" in log.read_text()
    assert list(log.parent.glob("*-pid-*.raylet.log"))


def run(out: Path, ray_folder: Path, users: Path, plugin: str) -> subprocess.CompletedProcess[str]:
    """`orchestrator run` with the user's plug-in, which lies outside the repository, on a cluster of the command's own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{ROOT}{os.pathsep}{users}"
    environment = {**clean, "RAY_TMPDIR": str(ray_folder), "PYTHONPATH": path, "COLUMNS": "120"}
    flags = []
    for setting in (
        f"model.overrides={json.dumps(SMALL['tiny-t5'])}",
        "streams.max_train=64",
        "streams.max_test=10",
        "training={epochs: 1, global_batch: 8, micro_batch: 4}",
        "scaling.max_failures=1",
        f"methods=[{{name: mine, tuning: full, plugins: [{plugin}]}}]",
    ):
        flags += ["--set", setting]
    command = [sys.executable, "-m", "orchestrator", "run", "embedded", "--out", str(out), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
