"""The console command as a whole: its help, and what each kind of error looks like to who gave the command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.errors import CommandFailed, NonFiniteLoss, SequenceFailed, UserError

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


@pytest.mark.parametrize(("code", "is_said"), [(130, True), (3, False)])
def test_who_stops_a_command_is_told_that_it_goes_on(
    code: int, is_said: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 is the shells' number for Ctrl-C."""

    def stop() -> None:
        raise SystemExit(code)

    monkeypatch.setattr("orchestrator.cli.app", stop)
    left, _, stderr = call("run")
    assert left == code
    assert ("the same command goes on from here" in stderr) == is_said
