"""The command line."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestrator.config.loading import DEFAULT_RECIPE, load_config
from orchestrator.errors import SequenceFailed, UserError

app = typer.Typer(
    help="Train continual-learning methods over streams of tasks, on a laptop or a Ray cluster, and record all of it in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130
bench = typer.Typer(help="Measure what the project claims.", no_args_is_help=True)
app.add_typer(bench, name="bench")
Out = Annotated[Path, typer.Option("--out", help="The output folder of the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as training.lr=1e-4. Repeatable."),
]
NewOut = Annotated[Path | None, typer.Option("--out", help="Output folder. Default: the recipe's, or ./runs.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="An experiment's name, or its folder.")]


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE|FILE.yaml]", help="What to run.")] = DEFAULT_RECIPE,
    set_: Settings = None,
    out: NewOut = None,
    as_json: AsJson = False,
) -> None:
    """Train and score every sequence of an experiment, and print the table.

    With no recipe: the embedded stream, fine-tuning against MIGU and its random control, on this machine's CPUs.
    Running the same command again trains nothing that is already there; a run that was stopped goes on.
    """
    from orchestrator.run import run_experiment

    config = load_config(recipe, set_ or [], str(out) if out else None)
    if config.search:
        raise UserError(
            f"{recipe}: it says how to search hyper-parameters: give `orchestrator tune {recipe}`, or --set search=null "
            "--set name=... to run the values as they stand"
        )
    raise typer.Exit(_finish(*run_experiment(config, _console(stderr=True)), as_json))


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="What to tune: it has a `search` section.")],
    set_: Settings = None,
    out: NewOut = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run trials that failed once more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Choose each method's hyper-parameters on tuning streams, then evaluate the chosen values on streams never seen.

    What is tuned on and what is evaluated is proven apart before the first trial. A search that was stopped goes on with
    the same command; more trials (--set search.trials=...) add to those that are there.
    """
    from orchestrator.search.protocol import tune_experiment

    config = load_config(recipe, set_ or [], str(out) if out else None)
    raise typer.Exit(_finish(*tune_experiment(config, _console(stderr=True), retry_failed), as_json))


@bench.command("search-reuse")
def bench_search_reuse(as_json: AsJson = False) -> None:
    """How many tasks a search trains when its trials share their common beginnings, against training each alone."""
    from orchestrator.bench import print_search_reuse, search_reuse

    console = _console(stderr=True)
    result = search_reuse(console)
    print_search_reuse(result, _console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    raise typer.Exit(0 if result["equal_results"] else 1)


@bench.command("methods")
def bench_methods(
    model: Annotated[str, typer.Option(help="A built-in model, a folder, or a hub id.")] = "tiny-t5",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are over so many rounds.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What each method costs beside fine-tuning: time, checkpoint and memory."""
    from orchestrator.bench import method_costs, print_method_costs

    rows = method_costs(_console(stderr=True), model, rounds)
    print_method_costs(rows, _console(stderr=as_json))
    if as_json:
        print(json.dumps({"methods": rows}))


@app.command()
def evaluate(run: Run, out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Score what an experiment has trained so far, where a score is missing; train nothing."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.run import evaluate_experiment

    experiment = open_experiment(run, str(out.resolve()))
    try:
        outcome = evaluate_experiment(experiment, _console(stderr=True))
    except ValueError as error:  # data, model or checkpoints that are no longer what they were
        raise UserError(str(error)) from error
    raise typer.Exit(_finish(*outcome, as_json))


@app.command()
def report(
    run: Run,
    out: Out = Path("runs"),
    matrices: Annotated[bool, typer.Option("--matrices", help="Print every accuracy matrix too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the table of an experiment and write its CSV files, from its journals alone."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.report.csv_files import write_csv
    from orchestrator.report.results import results
    from orchestrator.report.tables import matrix_table
    from orchestrator.search.results import is_search, search_results

    experiment = open_experiment(run, str(out.resolve()))
    result = search_results(experiment) if is_search(experiment) else results(experiment)
    console = _console(stderr=as_json)
    _print_result(result, console)
    if matrices:
        for sequence in result["sequences"]:
            console.print(matrix_table(sequence))
    console.print(f"CSV: {write_csv(experiment, result)}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="methods|streams|models|recipes", help="What to list.")],
    as_json: AsJson = False,
) -> None:
    """List what can be named in a configuration."""
    from methods import unknown
    from orchestrator.listing import LISTINGS, print_listing

    if what not in LISTINGS:
        raise UserError(unknown("list", what, LISTINGS))
    if as_json:
        print(json.dumps({what: LISTINGS[what]()}))
    else:
        print_listing(what, _console())


@app.command()
def ui(
    out: Out = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 5000,
) -> None:
    """Serve the MLflow UI of an output folder on this machine only."""
    store = out.resolve() / "mlflow.db"
    if not store.exists():
        raise UserError(f"--out: no MLflow store at {str(store)!r}; `orchestrator run` makes one")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"--port: {port} is in use on this machine; choose another")
    from orchestrator.tracking import experiments

    uri, console = f"sqlite:///{store}", _console(stderr=True)
    for name, experiment_id in experiments(uri).items():
        console.print(f"{name}: http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs", highlight=False)
    console.print("The server takes some seconds to answer. Ctrl-C ends it.", style="dim")
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--backend-store-uri", uri, "--registry-store-uri", uri,
               "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}", "--uvicorn-opts", "--log-level=warning"]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    # replaces this process, so that whoever ends it ends the server
    os.execve(sys.executable, command, os.environ | quiet)


def _finish(result: dict[str, Any], problems: list[str], as_json: bool) -> int:
    """The table, what went wrong, the next commands; gives the exit code."""
    console = _console(stderr=as_json)
    _print_result(result, console)
    for problem in problems:
        console.print(problem, style="red", highlight=False, soft_wrap=True)
    if result["mlflow_behind"]:
        console.print(result["mlflow_behind"], style="yellow", highlight=False, soft_wrap=True)
    out = _shown(result["out"])
    console.print(f"Report:  {_shown(result['report'])}", highlight=False, soft_wrap=True)
    console.print(
        f"Matrices: orchestrator report {result['experiment']} --matrices --out {out}", highlight=False, soft_wrap=True
    )
    if result["mlflow"].startswith("sqlite"):
        console.print(f"MLflow:  orchestrator ui --out {out}", highlight=False, soft_wrap=True)
    else:
        console.print(f"MLflow:  {result['mlflow']}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result))
    return 0 if not problems and all(s["status"] == "finished" for s in result["sequences"]) else 1


def _console(stderr: bool = False) -> Console:
    """Reasons and names are shown as they are: a bracket in them is no markup."""
    return Console(stderr=stderr, markup=False)


def _print_result(result: dict[str, Any], console: Console) -> None:
    """The table of an experiment, or of a search with both of its phases."""
    from orchestrator.report.tables import print_report
    from orchestrator.search.report import print_search

    if "search" in result:
        print_search(result, console)
    else:
        print_report(result, console)


def _shown(path: str) -> str:
    """Relative to where the user is, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(path) else path


def main() -> None:
    """The console command: bad input ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        _console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except SequenceFailed as error:
        _console(stderr=True).print(f"failed: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _console(stderr=True).print("stopped; the same command goes on from here", style="yellow")
        raise
