"""The console command as a whole: its help, and what each kind of error looks like to who gave the command."""

from __future__ import annotations

import os
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


EDITABLE = """
import sys
from importlib.machinery import PathFinder


class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{root!r}])


# an editable installation is looked for last, and the folder where the user stands, under `python -m`, first
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Editable)
sys.path[0] = {here!r}
from orchestrator.cli import main

main()
"""


@pytest.mark.parametrize("made", ["methods.py", "streams/mine.py"])
def test_a_package_that_the_users_own_hides_is_said(made: str, tmp_path: Path) -> None:
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("")
    code = EDITABLE.format(root=str(Path(__file__).parents[2]), here=str(tmp_path))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, "list", "methods"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    place = made.split("/")[0]
    line = f"error: {tmp_path / place} hides the package {place.removesuffix('.py')!r} of continual-orchestrator: rename it"
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
