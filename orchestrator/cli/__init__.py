"""The command line: each command reads its options and calls one function of a package below.

What is heavy to import (torch, Ray, MLflow) is imported inside the commands, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import sys

from orchestrator import interruption

# a command joins the application when its module is imported
from orchestrator.cli import benchmarks, experiments, storage, tools
from orchestrator.cli.app import app, make_console
from orchestrator.errors import CommandFailed, SequenceFailed, UserError
from orchestrator.logs import traceback_of

__all__ = ["benchmarks", "experiments", "main", "storage", "tools"]


def main() -> None:
    """The console command. Bad input ends in one line and exit code 2, a failure in one line and exit code 1."""
    interruption.listen()
    try:
        app()
    # 2 is what typer gives for an option that it does not know: a script asks one code for all bad input
    except UserError as error:
        _end_with(f"error: {error}", error, code=2)
    except (SequenceFailed, CommandFailed) as error:
        _end_with(f"failed: {error}", error, code=1)
    finally:
        # whatever typer, and others on the way, have made of it
        if interruption.was_asked():
            interruption.leave_now()


def _end_with(line: str, error: Exception, code: int) -> None:
    # the end of what it needed, by the signal
    if interruption.was_asked():
        return
    console = make_console(stderr=True)
    # the options of a command that has ended are gone, so the command line itself is asked
    if "--debug" in sys.argv:
        console.print(traceback_of(error), style="dim", highlight=False, soft_wrap=True)
    console.print(line, style="red", highlight=False, soft_wrap=True)
    raise SystemExit(code) from None
