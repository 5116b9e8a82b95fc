"""The command line: each command reads its options and calls one function of a package below.

What is heavy to import (torch, Ray, MLflow) is imported inside the commands, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from orchestrator import interruption

# a command joins the application when its module is imported
from orchestrator.cli import benchmarks, experiments, storage, tools
from orchestrator.cli.app import app, make_console
from orchestrator.errors import CommandFailed, SequenceFailed, StorageFailed, UserError, shortened
from orchestrator.logs import traceback_of

__all__ = ["benchmarks", "experiments", "main", "storage", "tools"]

# The base of what the parser of options raises. typer does not name it, and has moved it between its own packages
_ParserError: Any = typer.BadParameter.__mro__[2]


def main() -> None:
    """The console command. Bad input ends in one line and exit code 2, a failure in one line and exit code 1."""
    interruption.listen()
    try:
        code = app(standalone_mode=False)
    # 2 is what typer gives for an option that it does not know: a script asks one code for all bad input
    except UserError as error:
        _end_with(f"error: {error}", error, code=2)
    except (SequenceFailed, CommandFailed, StorageFailed) as error:
        _end_with(f"failed: {error}", error, code=1)
    except _ParserError as error:
        # a group that is called without a command shows what there is
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(error.exit_code) from None
        _end_with(f"error: {error.format_message()}", error, code=2)
    finally:
        # whatever typer, and others on the way, have made of it
        if interruption.was_asked():
            interruption.leave_now()
    raise SystemExit(code or 0)


def _end_with(line: str, error: Exception, code: int) -> None:
    # the end of what it needed, by the signal
    if interruption.was_asked():
        return
    console = make_console(stderr=True)
    # the options of a command that has ended are gone, so the command line itself is asked
    if "--debug" in sys.argv:
        console.print(traceback_of(error), style="dim", highlight=False, soft_wrap=True)
    # several lines are several leaks of data, each with its own
    for part in line.splitlines():
        console.print(shortened(part), style="red", highlight=False, soft_wrap=True)
    raise SystemExit(code) from None
