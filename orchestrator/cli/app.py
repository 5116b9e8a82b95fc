"""The application that the commands belong to, and the options that several of them have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from orchestrator import logs
from orchestrator.errors import CommandFailed, SequenceFailed, StorageFailed, UserError, shown
from orchestrator.storage.door import check_answers
from orchestrator.storage.places import resolved

app = typer.Typer(
    help="Train continual-learning methods over streams of tasks, on a laptop or a Ray cluster, and record all of it in MLflow.",
    no_args_is_help=True,
    # no options that write into the start-up files of the user's shell
    add_completion=False,
    rich_markup_mode="rich",
    # an error that nobody foresaw ends in Python's own traceback, which can be copied and searched for
    pretty_exceptions_enable=False,
)

# Of a name that is looked for as a folder, or as part of a file's name
MOST_OF_A_NAME = 1_000


def possible_name(name: str) -> str:
    """The name of an experiment or folder as it was given. Raises UserError where neither can be called so."""
    longest = max(name.split("/"), key=len)
    if "\0" in name or len(longest.encode(errors="replace")) > 255 or len(name) > MOST_OF_A_NAME:
        raise UserError(f"no experiment and no folder can be called {shown(name)}")
    return name


Out = Annotated[str, typer.Option("--out", help="The output folder of the runs, or s3://bucket/prefix.")]
# No default here: a recipe may name a folder, which an option that was not given must not override
NewOut = Annotated[
    str | None, typer.Option("--out", help="Output folder, or s3://bucket/prefix. Default: the recipe's, or ./runs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as training.lr=1e-4. Repeatable."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", callback=possible_name, help="An experiment's name, or its folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of what fails, not its log's path alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the machinery does: workers, scoring, MLflow.")]


def make_console(stderr: bool = False) -> Console:
    """A console on which reasons and names are shown as they are: a bracket in them is no markup."""
    return Console(stderr=stderr, markup=False)


def screen_console(verbose: bool) -> Console:
    """The console of a run's screen. With `verbose`, what the modules log is printed on it too."""
    console = make_console(stderr=True)
    # the same console as the screen's: lines printed past a table that is redrawn in place would tear it
    if verbose:
        logs.show_progress(console)
    return console


@contextlib.contextmanager
def failures_logged(out: str, command: str) -> Iterator[None]:
    """Turn an error that nobody foresaw into CommandFailed: one line that names the log of its traceback."""
    try:
        yield
    # these say all in their own line, and `main` gives each its exit code
    except (UserError, SequenceFailed, CommandFailed, StorageFailed):
        raise
    except Exception as error:
        path = logs.driver_log(out)
        logs.write_failure(path, f"orchestrator {command}", error)
        raise CommandFailed(f"{logs.reason(error)}; log: {path}") from error


def output_folder(out: str) -> str:
    """The output folder that `--out` names, the same in every process. Raises UserError, also where a store does not answer."""
    folder = resolved(out)
    check_answers(folder)
    return folder
