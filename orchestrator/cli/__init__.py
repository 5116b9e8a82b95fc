"""The command line: each command reads its options and calls one function of a package below.

What is heavy to import (torch, Ray, MLflow) is imported inside the commands, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import typer

from orchestrator import interruption

# a command joins the application when its module is imported
from orchestrator.cli import benchmarks, experiments, storage, tools
from orchestrator.cli.app import app, make_console
from orchestrator.errors import CommandFailed, SequenceFailed, StorageFailed, UserError, shortened
from orchestrator.logs import traceback_of
from orchestrator.redaction import RedactingStream

__all__ = ["benchmarks", "experiments", "main", "storage", "tools"]

# The base of what the parser of options raises. typer does not name it, and has moved it between its own packages
_ParserError: Any = typer.BadParameter.__mro__[2]


def main() -> None:
    """The console command. Bad input ends in one line and exit code 2, a failure in one line and exit code 1."""
    interruption.listen()
    _hide_secrets()
    try:
        _check_packages()
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


def _hide_secrets() -> None:
    """Have nothing printed with a password in it: neither our lines nor a library's, nor a traceback at the end."""
    # a second command in the same process has them already
    if not isinstance(sys.stdout, RedactingStream):
        sys.stdout = RedactingStream(sys.stdout)
    if not isinstance(sys.stderr, RedactingStream):
        sys.stderr = RedactingStream(sys.stderr)


def _check_packages() -> None:
    """Raises UserError where a folder of the user's hides one of our packages: nothing that is told later would say so.

    `python -m orchestrator` and the driver of a Ray job look first where the user stands.
    """
    root = Path(__file__).resolve().parents[2]
    for package in ("methods", "streams"):
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise UserError(f"the package {package!r} of continual-orchestrator is not installed")
        # a folder without an `__init__.py` hides ours too; a single file has no folder
        places = list(spec.submodule_search_locations or [str(spec.origin)])
        if Path(places[0]).resolve() != root / package:
            raise UserError(
                f"{places[0]} hides the package {package!r} of continual-orchestrator: rename it, or give the command "
                "`orchestrator` (not `python -m`) in another folder"
            )


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
