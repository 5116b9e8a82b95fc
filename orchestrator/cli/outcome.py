"""What a command prints at its end."""

from __future__ import annotations

import json
import os
from typing import Any

from rich.console import Console

from orchestrator.cli.app import make_console
from orchestrator.storage.places import SCHEME


def finish(result: dict[str, Any], problems: list[str], as_json: bool, debug: bool = False) -> int:
    """Print the table, what went wrong and the next commands; gives the exit code."""
    console = make_console(stderr=as_json)
    print_result(result, console)
    if debug:
        _print_tracebacks(result, console)
    for problem in problems:
        console.print(problem, style="red", highlight=False, soft_wrap=True)
    # said, and no failure: the journals are whole, and the next run copies the rest
    if result["mlflow_behind"]:
        console.print(result["mlflow_behind"], style="yellow", highlight=False, soft_wrap=True)
    for line in _next_steps(result):
        console.print(line, highlight=False, soft_wrap=True)
    # after all else: a program reads the last line of stdout
    if as_json:
        print(json.dumps(result))
    # every sequence may have finished, and yet scores that were computed beside training be missing
    if problems:
        return 1
    for sequence in result["sequences"]:
        if sequence["status"] != "finished":
            return 1
    return 0


def _next_steps(result: dict[str, Any]) -> list[str]:
    """Where the report is, and the commands that show more."""
    out = shown(result["out"])
    # a database file has no page to open, so a command comes in its stead; a server's URI is its page
    if result["mlflow"].startswith("sqlite"):
        mlflow = f"orchestrator ui --out {out}"
    else:
        mlflow = result["mlflow"]
    return [
        f"Report:  {shown(result['report'])}",
        f"Matrices: orchestrator report {result['experiment']} --matrices --out {out}",
        f"MLflow:  {mlflow}",
    ]


def _print_tracebacks(result: dict[str, Any], console: Console) -> None:
    """The traceback of each sequence that failed, and of each state that could not be scored."""
    for sequence in result["sequences"]:
        failures = list(sequence["scoring_failures"])
        if sequence["failure"]:
            failures.append(sequence["failure"])
        for failure in failures:
            if failure["traceback"]:
                console.print(f"{sequence['method']}, seed {sequence['seed']}:", style="bold", highlight=False)
                console.print(failure["traceback"], highlight=False, soft_wrap=True)


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print the table of an experiment, or of a search with both of its phases."""
    # each of its own: a search's brings SciPy along, which an experiment's table does not need
    if "search" in result:
        from orchestrator.search.report import print_search

        print_search(result, console)
    else:
        from orchestrator.report.tables import print_report

        print_report(result, console)


def shown(path: str) -> str:
    """The path as it is shortest to read: relative to where the user is, or absolute; a URI as it is."""
    if path.startswith(SCHEME):
        return path
    relative = os.path.relpath(path)
    if len(relative) < len(path):
        return relative
    return path
