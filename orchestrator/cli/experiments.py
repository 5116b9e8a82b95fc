"""The commands that make experiments and read them: `run`, `tune`, `evaluate`, `report`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import (
    AsJson,
    Debug,
    NewOut,
    Out,
    Run,
    Settings,
    Verbose,
    app,
    failures_logged,
    make_console,
    output_folder,
    screen_console,
)
from orchestrator.cli.outcome import finish, print_result, shown
from orchestrator.config import DEFAULT_RECIPE
from orchestrator.errors import UserError
from orchestrator.storage.door import check_answers

if TYPE_CHECKING:
    from orchestrator.config.experiment import RunConfig


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE|FILE.yaml]", help="What to run.")] = DEFAULT_RECIPE,
    set_: Settings = None,
    out: NewOut = None,
    as_json: AsJson = False,
    debug: Debug = False,
    verbose: Verbose = False,
) -> None:
    """Train and score every sequence of an experiment, and print the table.

    With no recipe: the embedded stream, fine-tuning against MIGU and its random control, on this machine's CPUs.
    Running the same command again trains nothing that is already there; a run that was stopped goes on.
    """
    from orchestrator.run import run_experiment

    config = _read(recipe, set_, out)
    # run as they stand, values that nobody chose would be evaluated under the name of the search
    if config.search:
        raise UserError(
            f"{recipe}: it says how to search hyper-parameters: give `orchestrator tune {recipe}`, or --set search=null "
            "--set name=... to run the values as they stand"
        )
    # only from here on is the folder known in which the log of an unforeseen error goes
    with failures_logged(config.out, "run"):
        result, problems = run_experiment(config, screen_console(verbose))
    raise typer.Exit(finish(result, problems, as_json, debug))


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="What to tune: it has a `search` section.")],
    set_: Settings = None,
    out: NewOut = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run trials that failed once more.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
    verbose: Verbose = False,
) -> None:
    """Choose each method's hyper-parameters on tuning streams, then evaluate the chosen values on streams never seen.

    What is tuned on and what is evaluated is proven apart before the first trial. A search that was stopped goes on with
    the same command; more trials (--set search.trials=...) add to those that are there.
    """
    from orchestrator.search.protocol import tune_experiment

    config = _read(recipe, set_, out)
    with failures_logged(config.out, "tune"):
        result, problems = tune_experiment(config, screen_console(verbose), retry_failed)
    raise typer.Exit(finish(result, problems, as_json, debug))


@app.command("plan")
def plan_(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="What would be run.")] = DEFAULT_RECIPE,
    set_: Settings = None,
    out: NewOut = None,
    tflops: Annotated[
        float, typer.Option(min=1e-6, max=1e9, help="What a GPU sustains, in TFLOP/s: hours follow from it.")
    ] = 150.0,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--no-gpu", help="Whether it will run on GPUs. Default: whether this machine has one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an experiment will take, and start nothing: steps, tokens, FLOPs, memory a GPU, disk, hours."""
    from orchestrator import dry_run

    config = _read(recipe, set_, out)
    totals = dry_run.estimate(config, make_console(stderr=True), gpu)
    dry_run.print_plan(config, totals, tflops, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(dry_run.as_json(totals, tflops)))


def _read(recipe: str, settings: list[str] | None, out: str | None) -> RunConfig:
    """The configuration that a command's options name."""
    from orchestrator.config.loading import load_config

    config = load_config(recipe, settings or [], out)
    check_answers(config.out)
    return config


@app.command()
def evaluate(
    run: Run,
    out: Out = "runs",
    as_json: AsJson = False,
    debug: Debug = False,
    verbose: Verbose = False,
) -> None:
    """Score what an experiment has trained so far, where a score is missing; train nothing."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.run import evaluate_experiment

    experiment = open_experiment(run, output_folder(out))
    with failures_logged(experiment.config.out, "evaluate"):
        result, problems = evaluate_experiment(experiment, screen_console(verbose))
    raise typer.Exit(finish(result, problems, as_json, debug))


@app.command()
def report(
    run: Run,
    out: Out = "runs",
    matrices: Annotated[bool, typer.Option("--matrices", help="Print every accuracy matrix too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the table of an experiment and write its CSV files, from its journals alone."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.report.csv_files import write_csv_or_say
    from orchestrator.report.matrix_table import matrix_table
    from orchestrator.report.results import results
    from orchestrator.search.results import is_search, search_results

    experiment = open_experiment(run, output_folder(out))
    # a search has an experiment's folder too; its report has the trials beside the evaluation
    if is_search(experiment):
        result = search_results(experiment)
    else:
        result = results(experiment)
    console = make_console(stderr=as_json)
    print_result(result, console)
    if matrices:
        for sequence in result["sequences"]:
            console.print(matrix_table(sequence))
    # written anew: the files of a run that was killed are older than its journals
    problems = write_csv_or_say(experiment, result)
    for problem in problems:
        console.print(problem, style="red", highlight=False, soft_wrap=True)
    if not problems:
        console.print(f"CSV: {result['report']}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result))
    if problems:
        raise typer.Exit(1)


@app.command()
def predictions(
    run: Run,
    task: Annotated[str, typer.Option("--task", help="The task whose examples were answered.")],
    after: Annotated[
        str | None, typer.Option("--after", metavar="N|TASK", help="Tasks seen, or the last of them. Default: all.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Default: the first of the experiment.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: the first of the experiment.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Default: the first that has the task.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only the wrong answers.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many examples. Default: 20; with --json, all.")
    ] = None,
    out: Out = "runs",
    as_json: AsJson = False,
) -> None:
    """Show what was answered to each example of a task, and what the right answer was."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.report.predictions import next_command, print_predictions, read_predictions, select_predictions

    experiment = open_experiment(run, output_folder(out))
    result = read_predictions(experiment, task, after, method, seed, stream)
    if as_json:
        result["predictions"] = select_predictions(result["predictions"], wrong, limit)
        print(json.dumps(result))
        return
    console = make_console()
    # a screenful for a person; a program, above, gets all unless it says otherwise
    selected = select_predictions(result["predictions"], wrong, limit or 20)
    print_predictions(result, selected, console)
    line = next_command(result, len(selected), wrong, shown(experiment.config.out))
    console.print(line, highlight=False, soft_wrap=True)
