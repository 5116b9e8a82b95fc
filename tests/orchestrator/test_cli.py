"""The console command as a whole: its help, and what each kind of error looks like to who gave the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import CommandFailed, NonFiniteLoss, SequenceFailed, UserError

ROOT = Path(__file__).parents[2]
Call = Callable[..., tuple[int, str, str]]


def test_help_names_the_commands(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "list", "evaluate", "report", "ui"):
        assert command in out


@pytest.mark.parametrize(
    ("error", "line", "expected"),
    [
        (UserError("lr: [1e-3] is no number"), "error: lr: [1e-3] is no number", 2),
        (SequenceFailed("it went wrong"), "failed: it went wrong", 1),
        (NonFiniteLoss("the loss is nan"), "failed: the loss is nan", 1),
        (CommandFailed("KeyError: 'x'; log: /a"), "failed: KeyError: 'x'; log: /a", 1),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: Exception, line: str, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bracket in it is no markup, and only `--debug` shows where it came from."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("orchestrator.cli.app", fail)
    code, stdout, stderr = call("run")
    assert (code, stdout, stderr) == (expected, "", f"{line}\n")
    code, _, stderr = call("run", "--debug")
    assert code == expected
    assert stderr.startswith("Traceback (most recent call last):")
    assert f'File "{__file__}"' in stderr
    assert stderr.endswith(f"{line}\n")


def test_an_error_that_nobody_foresaw_is_not_hidden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("x")

    monkeypatch.setattr("orchestrator.cli.app", fail)
    with pytest.raises(KeyError):
        call("run")


@pytest.mark.parametrize("converted", ["raise", "sys.exit(3)", "raise UserError('no folder')"])
def test_who_stops_a_command_is_told_that_it_goes_on(converted: str) -> None:
    """Whatever the code that was interrupted has made of it. In a process of its own, which ends."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from orchestrator import cli
from orchestrator.errors import UserError

def app():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        {converted}

cli.app = app
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "stopped; the same command goes on from here\n"
