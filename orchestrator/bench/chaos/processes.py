"""A command that is made to fail, and the processes that came of it: those alone are ever touched."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import psutil

import orchestrator

Role = Literal["driver", "worker", "scorer", "controller", "raylet", "gcs", "database"]

# What the first word of a process's command line has; Ray gives its actors such titles
TITLES: dict[Role, str] = {
    "worker": "ray::RayTrainWorker",
    "scorer": "ray::ScoringActor",
    "controller": "ray::TrainController",
    "raylet": "/raylet/raylet",
    "gcs": "/gcs_server",
}
ROLES: tuple[Role, ...] = ("driver", *TITLES, "database")

# Linux's numbers, see `man 2 prctl` and `man 7 capabilities`
PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1


class Place:
    """The folder of a run, a temporary folder that Ray shares with no other run, and the processes that came of it."""

    def __init__(self, folder: Path, command_line: Sequence[str]) -> None:
        self.folder = folder
        self.command_line = command_line
        self.out = folder / "out"
        # a short path: Ray's sockets lie below it
        self.ray_folder = tempfile.mkdtemp(prefix="chaos-")
        self.starts = 0

    def start(self) -> Command:
        """Give the command, for the first time or again."""
        self.starts += 1
        return Command(self)

    def processes(self) -> list[psutil.Process]:
        """All processes that came of the commands: they, and what outlives them, know the temporary folder."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            # one that has ended meanwhile, or another user's
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == self.ray_folder:
                    found.append(process)
        return found

    def end_all(self) -> None:
        """End every process that is left."""
        ends = time.monotonic() + 30.0
        # one of them may start another before it ends
        while (left := self.processes()) and time.monotonic() < ends:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1.0)

    def close(self) -> None:
        """End every process that is left, and remove Ray's folder."""
        self.end_all()
        shutil.rmtree(self.ray_folder, ignore_errors=True)

    @property
    def is_making_database(self) -> bool:
        """Whether MLflow's database is being created: a file is there, and no run is in it."""
        files = list(self.out.glob("*mlflow*.db*")) + list(self.out.glob(".*mlflow*"))
        if not files:
            return False
        try:
            database = f"{(self.out / 'mlflow.db').absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(database, uri=True, timeout=0.1)) as connected:
                return connected.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        # no tables yet
        except sqlite3.Error:
            return True


class Command:
    """One start of a command: the driver, in a session of its own, and what it has started."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.began = time.time()
        self.log = place.folder / f"start-{place.starts}"
        # through pipes: a storage that refuses writes for a while is not that of a terminal
        self.driver = subprocess.Popen(
            place.command_line,
            env=_environment(place.ray_folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_as_a_users,
        )
        self._keepers: list[threading.Thread] = []
        for suffix, stream in (("out", self.driver.stdout), ("err", self.driver.stderr)):
            assert stream is not None
            # a daemon: what outlives the driver may hold the pipe's other end
            thread = threading.Thread(target=_keep, args=(stream, self.log.with_suffix(f".{suffix}")), daemon=True)
            thread.start()
            self._keepers.append(thread)
            thread.join(0)

    @property
    def is_running(self) -> bool:
        """Whether the driver has not ended."""
        return self.driver.poll() is None

    def wait(self, seconds: float) -> int | None:
        """The driver's exit code; None where it did not end in time, and was killed with its group."""
        try:
            code = self.driver.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_group()
            return None
        # its last words may still be in the pipe, which ends later where a process outlives the driver
        for keeper in self._keepers:
            keeper.join(1.0)
        return code

    def kill_group(self) -> None:
        """SIGKILL for the driver and the processes of its group."""
        # the group is gone where all of its processes are
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()

    def having(self, role: Role) -> list[psutil.Process]:
        """The processes that have a role by now; for the database the driver, which makes it."""
        if role in ("driver", "database"):
            if not self.is_running or (role == "database" and not self.place.is_making_database):
                return []
            return [psutil.Process(self.driver.pid)]
        found: list[psutil.Process] = []
        for process in self.place.processes():
            if _has_title(process, TITLES[role]):
                found.append(process)
        return found

    def wait_for(self, role: Role) -> list[psutil.Process]:
        """The processes that have a role, as soon as there are any; none where the driver ended before."""
        while self.is_running:
            found = self.having(role)
            if found:
                return found
            time.sleep(0.05)
        return []

    def printed(self, suffix: str) -> str:
        """What the driver has printed: `out` or `err`."""
        file = self.log.with_suffix(f".{suffix}")
        return file.read_text(errors="replace") if file.exists() else ""

    def result(self) -> dict[str, Any]:
        """The JSON object that it ended with; empty where it did not."""
        lines = self.printed("out").splitlines()
        try:
            result: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError):
            return {}
        return result


def _keep(stream: IO[bytes], file: Path) -> None:
    with file.open("wb") as kept:
        for line in stream:
            kept.write(line)
            kept.flush()


def _has_title(process: psutil.Process, title: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and title in words[0]


def _environment(ray_folder: str) -> dict[str, str]:
    """This process's own, but for settings of a Ray cluster, which the run shall not join."""
    values: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.startswith("RAY_"):
            values[name] = value
    # the package that this process runs, wherever it was started
    package = str(Path(orchestrator.__file__).parent.parent)
    paths = [package, *values.get("PYTHONPATH", "").split(os.pathsep)]
    values["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return values | {"RAY_TMPDIR": ray_folder, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def _as_a_users() -> None:
    """Have a superuser's command too be refused what a file's mode forbids, and one in the background be interrupted."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@contextlib.contextmanager
def at_place(folder: Path, command_line: Sequence[str]) -> Iterator[Place]:
    """A place whose processes are ended however the block ends."""
    place = Place(folder, command_line)
    try:
        yield place
    finally:
        place.close()
