"""Whose processes are touched: those that came of the command, and no others."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.bench.chaos.processes import Command, Place, at_place

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
# one child stays in the group, the other leaves it, as Ray's workers do
PARENT = """
import subprocess, sys
for alone in (False, True):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=alone)
print("up", flush=True)
while True: pass
"""


@contextmanager
def started(folder: Path, command_line: Sequence[str]) -> Iterator[tuple[Place, Command]]:
    """A command that has printed its first line."""
    with at_place(folder, command_line) as place:
        command = place.start()
        ends = time.monotonic() + 30
        while not command.printed("out"):
            assert time.monotonic() < ends and command.is_running, command.printed("err")
            time.sleep(0.02)
        yield place, command


def test_what_outlives_the_command_is_known_and_ended_and_no_other_process(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL, env={**os.environ, "RAY_TMPDIR": "/elsewhere"}) as other:
        with started(tmp_path, [sys.executable, "-c", PARENT]) as (place, command):
            assert len(place.processes()) == 3
            command.kill_group()
            assert not command.is_running
            # the kernel takes a moment to take down the group's other process
            ends = time.monotonic() + 30
            while len(place.processes()) > 1 and time.monotonic() < ends:
                time.sleep(0.02)
            (left,) = place.processes()
            place.end_all()
            assert not psutil.pid_exists(left.pid) or left.status() == psutil.STATUS_ZOMBIE
            assert place.processes() == []
            assert Path(place.ray_folder).is_dir()
            # a group that is gone is no error
            command.kill_group()
        assert other.poll() is None
        assert not Path(place.ray_folder).exists()
        other.kill()


def test_roles_are_told_by_the_title(tmp_path: Path) -> None:
    with started(tmp_path, SLEEP) as (place, command):
        assert [process.pid for process in command.having("driver")] == [command.driver.pid]
        assert command.having("worker") == [] == command.having("database")
        environment = {"RAY_TMPDIR": place.ray_folder}
        with (
            subprocess.Popen(["ray::RayTrainWorker.run", "60"], executable="/bin/sleep", env=environment) as worker,
            subprocess.Popen(["/x/gcs_server", "60"], executable="/bin/sleep", env=environment) as gcs,
        ):
            assert [process.pid for process in command.wait_for("worker")] == [worker.pid]
            assert [process.pid for process in command.having("gcs")] == [gcs.pid]
            assert command.having("raylet") == []
            place.end_all()
        command.driver.wait()
        assert command.wait_for("raylet") == [], "it is not waited for what cannot come"


def test_a_database_is_being_made_until_it_has_a_run(tmp_path: Path) -> None:
    place = Place(tmp_path, [])
    place.out.mkdir()
    file = place.out / "mlflow.db"
    assert not place.is_making_database
    file.write_bytes(b"")
    assert place.is_making_database
    with closing(sqlite3.connect(file)) as connected:
        connected.execute("CREATE TABLE runs (run_uuid)")
        assert place.is_making_database
        connected.execute("INSERT INTO runs VALUES ('one')")
        connected.commit()
    assert not place.is_making_database
    place.close()


def test_the_last_line_is_the_result_and_an_end_that_does_not_come_is_made(tmp_path: Path) -> None:
    script = "import sys; print('text'); print('{\"mlflow_behind\": 7}'); print('said', file=sys.stderr); sys.exit(3)"
    with at_place(tmp_path, [sys.executable, "-c", script]) as place:
        command = place.start()
        assert command.wait(30) == 3
        assert command.result() == {"mlflow_behind": 7}
        assert command.printed("err") == "said\n"
        assert (tmp_path / "start-1.out").exists()
    with started(tmp_path, SLEEP) as (_, command):
        assert command.wait(0.1) is None
        assert not command.is_running
        assert command.result() == {}


def test_the_mode_of_a_file_binds_a_superuser_too(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    file.chmod(0o444)
    with at_place(tmp_path, [sys.executable, "-c", f"open({str(file)!r}, 'w')"]) as place:
        command = place.start()
        assert command.wait(30) == 1
        assert "PermissionError" in command.printed("err")
    assert file.read_text() == "as it was"


def test_the_run_gets_no_settings_of_another_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    script = "import os, orchestrator; print('RAY_ADDRESS' in os.environ, os.environ['RAY_TMPDIR'])"
    # not from the folder that has the package
    monkeypatch.chdir(tmp_path)
    with at_place(tmp_path, [sys.executable, "-c", script]) as place:
        command = place.start()
        assert command.wait(60) == 0, command.printed("err")
        assert command.printed("out") == f"False {place.ray_folder}\n"
