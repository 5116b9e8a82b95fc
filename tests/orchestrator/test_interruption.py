"""What a signal does to a process; each in a process of its own, since some of them end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from orchestrator import interruption

def strike(name):
    os.kill(os.getpid(), getattr(signal, name))

# a shell has some of them ignored in what it starts in the background
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
interruption.listen()
"""


def end_of(program: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program."""
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_interrupts_and_is_said_by_the_exit_code(name: str, code: int) -> None:
    program = f"""
try:
    strike({name!r})
except KeyboardInterrupt:
    print("interrupted")
    interruption.leave_now()
"""
    assert end_of(program) == (code, "interrupted\n", "stopped; the same command goes on from here\n")


def test_work_that_can_be_left_in_good_order_is_only_asked() -> None:
    program = """
try:
    with interruption.deferred() as was_asked:
        print(was_asked())
        strike("SIGTERM")
        print(was_asked(), flush=True)
except KeyboardInterrupt:
    print("at the end", interruption.exit_code())
"""
    assert end_of(program) == (0, "False\nTrue\nat the end 143\n", "")


def test_a_second_signal_ends_the_process_on_the_spot_but_no_echo_of_the_first() -> None:
    program = """
with interruption.deferred():
    strike("SIGTERM")
    strike("SIGTERM")
    print("still there", flush=True)
    interruption._interruption.time -= 2
    strike("SIGINT")
    print("never")
"""
    assert end_of(program) == (143, "still there\n", "stopped; the same command goes on from here\n")


def test_what_is_ignored_stays_ignored() -> None:
    program = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
interruption.listen()
strike("SIGHUP")
print(interruption.was_asked())
"""
    assert end_of(program) == (0, "False\n", "")
