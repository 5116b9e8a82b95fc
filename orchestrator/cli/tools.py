"""Commands beside the experiments: `list`, `data`, `check-method` and `ui`."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, Debug, Out, app, make_console, output_folder
from orchestrator.errors import UserError
from orchestrator.storage.places import local_folder, resolved

MOST_PORT = 65535


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="methods|streams|scenarios|scorers|models|recipes", help="What to list.")
    ],
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
        print_listing(what, make_console())


@app.command("data")
def data_(
    name: Annotated[str, typer.Argument(metavar="STREAM|RECIPE|FILE.yaml", help="A stream, or what has streams.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where a stream's files are. Default: what is configured for it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the data of a stream is: rows, what is left out and why, whether files are the published ones, and leaks.

    Exit codes: 0 a run takes it, 1 a run refuses it for what it leaks, 2 bad input.
    """
    from orchestrator import data_report

    reports = data_report.report(name, str(folder) if folder else None)
    data_report.print_reports(reports, make_console(stderr=as_json))
    if as_json:
        print(json.dumps({"data": reports}))
    for report in reports:
        if any(leak["refused"] for leak in report["leaks"]):
            raise typer.Exit(1)


@app.command("check-method")
def check_method_(
    name: Annotated[str, typer.Argument(metavar="NAME|my_module.MyPlugin", help="A part's name, or its dotted path.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check that a plug-in or tuning method, of ours or of your own, does what every method must.

    Exit codes: 0 it does, 1 a check failed, 2 there is no such part.
    """
    from orchestrator.contract import check_method as contract

    results = contract.check_method(name)
    console = make_console(stderr=as_json)
    contract.print_checks(results, console)
    for result in results:
        if debug and result.traceback:
            console.print(f"{result.check}:\n{result.traceback}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"method": name, "checks": contract.as_json(results)}))
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


@app.command()
def ui(
    out: Out = "runs",
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 5000,
) -> None:
    """Serve the MLflow UI of an output folder on this machine only."""
    if not 1 <= port <= MOST_PORT:
        raise UserError(f"--port: {port} is none; allowed: 1 to {MOST_PORT}")
    store = local_folder(resolved(out)) / "mlflow.db"
    if not store.exists():
        raise UserError(f"--out: no MLflow store at {str(store)!r}; `orchestrator run` makes one")
    # asked now: once MLflow's server has replaced this process, only its own traceback would tell
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"--port: {port} is in use on this machine; choose another")
    # MLflow takes seconds to import, which mistakes must not wait for
    from orchestrator.tracking import experiments

    uri = f"sqlite:///{store}"
    console = make_console(stderr=True)
    for name, experiment_id in experiments(uri).items():
        console.print(f"{name}: http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs", highlight=False)
    console.print("The server takes some seconds to answer. Ctrl-C ends it.", style="dim")
    # replaces this process, so that whoever ends it ends the server
    os.execve(sys.executable, _server_command(uri, port), os.environ | _QUIET)


# MLflow's job runner would start processes of its own, and no command of ours submits a job
_QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def _server_command(uri: str, port: int) -> list[str]:
    """MLflow's server on the loopback interface, which answers to no other host name."""
    return [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", uri, "--registry-store-uri", uri),
        # without it, a web page whose host name leads to this machine could read the runs
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        *("--uvicorn-opts", "--log-level=warning"),
    ]


@app.command("mixture-law")
def mixture_law_(
    experiments: Annotated[list[str], typer.Argument(metavar="EXPERIMENT...", help="Finished runs of mixtures.")],
    task: Annotated[str, typer.Option("--task", help="The task that was trained in mixtures, scored by perplexity.")],
    general: Annotated[str | None, typer.Option("--general", help="The task of which the guests are.")] = None,
    most: Annotated[float, typer.Option("--most", help="The general loss at most, in nats a token.")] = float("inf"),
    tokens: Annotated[
        float | None, typer.Option("--tokens", help="Of the run to come. Default: the largest one's.")
    ] = None,
    out: Out = "runs",
    as_json: AsJson = False,
) -> None:
    """Fit how the loss falls with tokens and share of a mixture (arXiv 2406.01375), and say the best share for a target."""
    from orchestrator.planning.experiment import open_experiment
    from orchestrator.report.mixtures.advice import advise, print_advice

    opened = [open_experiment(experiment, output_folder(out)) for experiment in experiments]
    try:
        advice = advise(opened, task, general, most, tokens)
    except ValueError as error:
        raise UserError(str(error)) from error
    print_advice(advice, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(advice))
