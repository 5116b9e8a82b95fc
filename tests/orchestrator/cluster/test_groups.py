"""Failures on real Ray clusters, as a user sees them: a line on the screen, and in the log that it names their own code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.orchestrator.failing import hook_frame, user_line, write_plugin

ROOT = Path(__file__).parent.parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SETTINGS = [
    f"model.overrides={json.dumps(SMALL['tiny-t5'])}",
    "streams.max_train=64",
    "streams.max_test=10",
    "training.epochs=1",
    "training.global_batch=8",
    "training.micro_batch=4",
    "scaling.max_failures=1",
]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(out: Path, ray_folder: Path, users: Path, plugin: str, *settings: str) -> subprocess.CompletedProcess[str]:
    """`orchestrator run` with the user's plug-in, which lies outside the repository."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{ROOT}{os.pathsep}{users}"
    environment = {**clean, "RAY_TMPDIR": str(ray_folder), "PYTHONPATH": path, "COLUMNS": "120"}
    method = f"{{name: mine, tuning: full, plugins: [{plugin}]}}"
    flags = []
    for setting in (*SETTINGS, f"methods=[{method}]", *settings):
        flags += ["--set", setting]
    command = [sys.executable, "-m", "orchestrator", "run", "embedded", "--out", str(out), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def log_of(screen: str) -> Path:
    """The log that the line on the screen names."""
    found = re.search(r"^mine, seed 42.*; log: (\S+)$", screen, flags=re.M)
    assert found, screen
    return Path(found[1])


@pytest.mark.parametrize(
    ("workers", "rank", "hook"),
    [(1, -1, "on_batch"), (1, -1, "after_task"), (2, 1, "after_forward"), (2, -1, "on_batch")],
)
def test_the_user_finds_the_line_of_their_own_code(
    workers: int, rank: int, hook: str, tmp_path: Path, ray_folder: Path
) -> None:
    plugin_file = write_plugin(tmp_path / "users", "my_plugin")
    plugin = f"{{name: my_plugin.Broken, hook: {hook}, rank: {rank}}}"
    done = run(tmp_path / "out", ray_folder, plugin_file.parent, plugin, f"scaling.workers={workers}")
    assert done.returncode == 1, done.stderr[-3000:]
    assert f"KeyError: 'a bracket [red] of {hook}'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    log = log_of(done.stdout)
    # whichever worker fails first where all do; where one does, it is that one's own log
    if rank >= 0:
        assert log.name == f"worker-{rank}.log"
    assert user_line(plugin_file) in log.read_text()
    assert hook_frame(plugin_file, hook) in log.read_text()
    assert list(log.parent.parent.glob("ray-*/*.out")), "Ray's own logs are copied beside it"


def test_a_killed_worker_leaves_a_line_and_rays_logs(tmp_path: Path, ray_folder: Path) -> None:
    plugin_file = write_plugin(tmp_path / "users", "my_plugin")
    plugin = "{name: my_plugin.Broken, hook: after_forward, how: kill}"
    done = run(tmp_path / "out", ray_folder, plugin_file.parent, plugin)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "its workers died 2 times (scaling.max_failures is 1); the last time: worker 0 (pid " in done.stdout
    assert "ended without a word (killed, out of memory, or crashed): SYSTEM_ERROR" in done.stdout
    assert "(raylet)" not in done.stdout, "Ray's own paragraph stands beside it"
    log = log_of(done.stdout)
    assert log.parent.name.startswith("ray-embedded-")
    assert "Worker exit type: SYSTEM_ERROR" in log.read_text()
    assert list(log.parent.glob("*-pid-*.raylet.log"))
