"""`orchestrator prune`: gives back the disk space of states that nothing needs any more."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.app import AsJson, Out, app, failures_logged, make_console, output_folder
from orchestrator.cli.outcome import shown
from orchestrator.config import Keep


@app.command()
def prune(
    run: Annotated[
        str, typer.Argument(metavar="EXPERIMENT_OR_RUN", help="An experiment, its folder, or a sequence's id.")
    ],
    keep: Annotated[
        Literal["last", "none"] | None,
        typer.Option("--keep", help="Default: the experiment's `checkpoints.keep`, and `last` where that is all."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    out: Out = "runs",
    as_json: AsJson = False,
) -> None:
    """Remove states that are scored and that nothing starts from any more; every score stays.

    What a sequence that is not through, another experiment or a running command needs is left. The same `run` finds its
    scores afterwards and trains nothing; what a longer stream starts from is trained again.
    """
    from orchestrator.report.pruning import print_pruning
    from orchestrator.report.pruning import prune as prune_states

    folder = output_folder(out)
    with failures_logged(folder, "prune"):
        result = prune_states(run, folder, keep, dry_run)
    console = make_console(stderr=as_json)
    print_pruning(result, console)
    console.print(_next_command(result, keep), highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result))


def _next_command(result: dict[str, Any], keep: Keep | None) -> str:
    out = shown(result["out"])
    out = "" if out == "runs" else f" --out {out}"
    if result["dry_run"] and result["states"]:
        option = f" --keep {keep}" if keep else ""
        return f"remove them: orchestrator prune {result['run']}{option}{out}"
    return f"the table again: orchestrator report {result['experiment']}{out}"
