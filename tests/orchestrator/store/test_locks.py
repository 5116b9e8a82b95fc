"""Locks: one holder at a time, and what becomes of one whose machine is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import locks
from orchestrator.store.locks import exclusive_lock, has_lost_a_lock

ROOT = Path(__file__).parents[3]
# a holder on another machine that shares the folder; it says when it has the lock, and whether it has lost it
HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from orchestrator.store import locks
locks.BEAT_SECONDS = 0.05
locks._kernel = lambda: sys.argv[3]
with locks.exclusive_lock(Path(sys.argv[1]), "k", 0) as mine:
    print(mine, flush=True)
    while not locks.has_lost_a_lock():
        time.sleep(0.02)
    print("lost", flush=True)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "locks", "k", 0) as first:
        assert first
        with (
            exclusive_lock(tmp_path / "locks", "k", 0) as second,
            exclusive_lock(tmp_path / "locks", "other", 0) as other,
        ):
            assert not second
            assert other
    with exclusive_lock(tmp_path / "locks", "k", 0) as again:
        assert again


@pytest.fixture
def gone_after(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds of silence that are long enough; many beats of a holder."""
    monkeypatch.setattr(locks, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    return 1.0


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock `k`, on the kernel of that name."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(ROOT), request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("holder", ["another machine"], indirect=True)
def test_a_lock_is_taken_over_from_a_machine_that_is_gone_alone(
    holder: subprocess.Popen[str], gone_after: float, tmp_path: Path
) -> None:
    """Its lock stays: the process is stopped, so that the operating system keeps it as a server does for a lost machine."""
    with exclusive_lock(tmp_path, "k", 1.5 * gone_after) as while_it_lives:
        assert not while_it_lives
    holder.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with exclusive_lock(tmp_path, "k", 0) as at_once:
        assert not at_once
    with exclusive_lock(tmp_path, "k", 20 * gone_after) as after_a_while:
        assert after_a_while
        assert time.monotonic() - began >= gone_after
        with exclusive_lock(tmp_path, "k", 0.1) as second:
            assert not second, "two took it over"
        # it was not gone after all, and learns that it must end
        holder.send_signal(signal.SIGCONT)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "lost\n"
        assert not has_lost_a_lock()
    with exclusive_lock(tmp_path, "k", 0) as again:
        assert again


@pytest.mark.parametrize("holder", [locks._kernel()], indirect=True)
def test_a_process_of_this_machine_keeps_its_lock_as_long_as_it_is_there(
    holder: subprocess.Popen[str], gone_after: float, tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGSTOP)
    with exclusive_lock(tmp_path, "k", 1.5 * gone_after) as mine:
        assert not mine
    holder.kill()
    with exclusive_lock(tmp_path, "k", 5) as mine:
        assert mine


def test_a_clock_that_is_set_back_is_no_silence(gone_after: float, tmp_path: Path) -> None:
    """Signs of life are compared with each other alone: any that differs is one."""
    with exclusive_lock(tmp_path, "k", 0):
        sign = tmp_path / "k.alive"
        for number in range(30):
            sign.write_text("another machine")
            os.utime(sign, ns=(10**18 - number, 10**18 - number))
            assert not locks._is_abandoned(tmp_path / "k.lock")
            time.sleep(0.05)
