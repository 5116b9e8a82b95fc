"""Commands beside the experiments: `list` and `ui`."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, Out, app, make_console
from orchestrator.errors import UserError


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
        print_listing(what, make_console())


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

    uri = f"sqlite:///{store}"
    console = make_console(stderr=True)
    for name, experiment_id in experiments(uri).items():
        console.print(f"{name}: http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs", highlight=False)
    console.print("The server takes some seconds to answer. Ctrl-C ends it.", style="dim")
    # replaces this process, so that whoever ends it ends the server
    os.execve(sys.executable, _server_command(uri, port), os.environ | _QUIET)


_QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def _server_command(uri: str, port: int) -> list[str]:
    """MLflow's server on the loopback interface, which answers to no other host name."""
    return [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", uri, "--registry-store-uri", uri),
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        *("--uvicorn-opts", "--log-level=warning"),
    ]
