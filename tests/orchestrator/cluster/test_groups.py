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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2
from ray.util import placement_group_table

from orchestrator import logs
from orchestrator.cluster import elastic
from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import Resources
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.events import SequenceStarted
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import View, read_view
from orchestrator.training.sequence import run_sequence
from tests.conftest import SMALL, small_config
from tests.orchestrator.cluster.conftest import Nodes
from tests.orchestrator.failing import hook_frame, user_line, write_plugin
from tests.steps import losses_of

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
        {"name": "wild", "tuning": "full", "training": {"lr": 1000, "clip": None, "weight_decay": 1000}},
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


def test_a_group_follows_its_cluster_and_leaves_a_node_that_is_taken_away(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, then four when a node comes, then two when it is to go: the same steps as one worker makes, each once."""
    monkeypatch.setattr(elastic, "RESIZE_SECONDS", 1.0)
    is_slow = tmp_path / "slow"
    is_slow.touch()
    method = failing("slow", hook="before_optimizer_step", how="slow", while_there=str(is_slow))
    settings = {"stream": {"max_train": 160}, "training": {"micro_batch": 2}, "scaling": {"workers": [1, 4]}}
    (sequence,) = plan(small_config(tmp_path / "out", methods=[method], **settings))
    ended = threading.Event()
    problems: list[str] = []

    def run_it() -> None:
        problems.extend(train([sequence], ScalingConfig(workers=(1, 4), max_failures=0))[1])
        ended.set()

    threading.Thread(target=run_it, daemon=True).start()
    log = logs.worker_log(sequence.out, sequence.id, 0)
    wait_for(lambda: steps_of(sequence) >= 2 and workers_of(sequence) == [2])
    node = nodes.cluster.add_node(num_cpus=2)
    wait_for(lambda: workers_of(sequence) == [2, 4] and "goes on after step" in log.read_text())
    steps = steps_of(sequence)
    wait_for(lambda: steps_of(sequence) >= steps + 2)
    drain(nodes, node)
    wait_for(lambda: workers_of(sequence) == [2, 4, 2])
    nodes.cluster.remove_node(node)
    is_slow.unlink()
    assert ended.wait(300)
    view = read_view(sequence.out, sequence.id)
    assert (view.status, problems) == ("finished", [])
    left = re.findall(r" leaves: left (task '\w+') after step (\d+)", log.read_text())
    assert log.read_text().count(" leaves: left ") == 2, "or between two tasks"
    assert left == re.findall(r"(task '\w+') goes on after step (\d+)", log.read_text()), "no step was lost"
    alone = sequence.model_copy(update={"out": str(tmp_path / "alone")})
    run_sequence(alone)
    ours, theirs = (losses_of(Path(s.out), sequence.id) for s in (sequence, alone))
    np.testing.assert_allclose(ours[:50], theirs[:50], rtol=1e-4)
    # rounding grows from step to step
    np.testing.assert_allclose(ours, theirs, rtol=2e-2)


def steps_of(sequence: SequencePlan) -> int:
    """How many steps were made so far."""
    return sum(len(task.steps) for task in read_view(sequence.out, sequence.id).by_task.values())


def workers_of(sequence: SequencePlan) -> list[int]:
    """The number of workers of each start, in order."""
    counts = []
    for event in Tail(journal_folder(sequence.out, sequence.id)).new_events():
        if isinstance(event, SequenceStarted):
            counts.append(event.workers)
    return counts


def drain(nodes: Nodes, node: Any) -> None:
    """Tell Ray that a node will soon be taken away, as a cloud's notice does."""
    preemption = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int(time.time() * 1000) + 300_000
    accepted, why_not = GcsClient(address=nodes.cluster.address).drain_node(
        node.node_id, preemption, "taken away", deadline
    )
    assert accepted, why_not


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.2)


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
