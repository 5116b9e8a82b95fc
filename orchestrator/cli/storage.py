"""The files of an experiment: `prune` gives space back, `verify` says what is damaged, `sync` mends the copy in MLflow."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.app import AsJson, Out, Run, app, failures_logged, make_console, output_folder, possible_name
from orchestrator.cli.outcome import shown
from orchestrator.config import Keep


@app.command()
def prune(
    run: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT_OR_RUN",
            callback=possible_name,
            help="An experiment, its folder, or a sequence's id.",
        ),
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


@app.command()
def sync(run: Run, out: Out = "runs", as_json: AsJson = False) -> None:
    """Compare the copy in MLflow with the journals: copy what is missing, mend what differs, delete what is there twice.

    It restores a store that was deleted, and completes one that was behind. Exit codes: 0 in step, 1 not, 2 bad input.
    """
    from orchestrator.sync import print_sync, sync_run

    folder = output_folder(out)
    console = make_console(stderr=as_json)
    with failures_logged(folder, "sync"):
        result = sync_run(run, folder, console)
    print_sync(result, console)
    out_option = f" --out {shown(result['out'])}"
    if result["in_step"]:
        line = f"open it: {result['page'] or 'orchestrator ui' + out_option}"
    else:
        line = f"once more: orchestrator sync {result['experiment']}{out_option}"
    console.print(line, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result))
    raise typer.Exit(0 if result["in_step"] else 1)


@app.command()
def verify(
    run: Run,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put aside what is damaged, and write again what is known elsewhere.")
    ] = False,
    out: Out = "runs",
    as_json: AsJson = False,
) -> None:
    """Read every file of an experiment or a search, and say which is not what was written and what can be done.

    Exit codes: 0 all is sound, or was mended so far that the command it names does the rest; 1 damaged; 2 bad input.
    """
    from orchestrator.verification.verify import print_verification
    from orchestrator.verification.verify import verify as verify_files

    folder = output_folder(out)
    with failures_logged(folder, "verify"):
        result = verify_files(run, folder, make_console(stderr=True), repair)
    print_verification(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    if result["lost"] or (result["damaged"] and not repair):
        raise typer.Exit(1)
