"""`list`, `check-method` and `ui`: what is printed where, and how bad input is answered."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.contract.check_method import CheckResult, Outcome
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from tests.conftest import small_config

Call = Callable[..., tuple[int, str, str]]
Started = list[tuple[str, Sequence[str], Mapping[str, str]]]


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What would have replaced this process: the tests themselves must never become a server."""
    started: Started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    monkeypatch.setattr("orchestrator.tracking.experiments", lambda uri: {"mine": "7"})
    return started


@pytest.mark.parametrize("what", ["methods", "streams", "models", "recipes"])
def test_lists(what: str, call: Call) -> None:
    code, out, _ = call("list", what, "--json")
    rows = json.loads(out.splitlines()[-1])[what]
    assert code == 0
    assert {r["name"] for r in rows} >= {
        "methods": {"ft", "ft+migu", "lora+migu", "migu", "random_mask"},
        "streams": {"embedded", "order1", "order6"},
        "models": {"tiny-t5", "tiny-bert", "tiny-llama", "minilm"},
        "recipes": {"embedded", "order4-minilm", "order1-t5", "order6-t5"},
    }[what]
    code, table, _ = call("list", what)
    assert code == 0
    assert rows[0]["name"] in table


def test_an_unknown_list_is_one_line(call: Call) -> None:
    code, stdout, stderr = call("list", "method")
    assert (code, stdout) == (2, "")
    assert "unknown list 'method'. Did you mean 'methods'?" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(("outcome", "expected"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_a_check_that_failed_is_the_exit_code(
    outcome: Outcome, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks themselves are tested with the contract."""
    results = [CheckResult("described", "passed"), CheckResult("resumes", outcome, "my reason", "my traceback")]
    monkeypatch.setattr("orchestrator.contract.check_method.check_method", lambda name: results)
    code, stdout, stderr = call("check-method", "ewc", "--json")
    assert code == expected
    found = json.loads(stdout)
    assert found["method"] == "ewc"
    assert [check["outcome"] for check in found["checks"]] == ["passed", outcome]
    assert "my reason" in stderr, "the table makes room for the JSON object"
    assert "my traceback" not in stderr
    code, stdout, stderr = call("check-method", "ewc", "--debug")
    assert code == expected
    assert "my traceback" in stdout


def test_without_a_store_there_is_no_ui(call: Call, tmp_path: Path) -> None:
    code, _, stderr = call("ui", "--out", tmp_path / "out")
    assert code == 2
    assert f"--out: no MLflow store at '{tmp_path}/out/mlflow.db'; `orchestrator run` makes one" in stderr
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_in_use_is_said_before_the_server_starts(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, stderr = call("ui", "--out", tmp_path, "--port", port)
    assert code == 2
    assert f"--port: {port} is in use on this machine" in stderr


def test_the_server_answers_this_machine_alone(call: Call, tmp_path: Path, servers: Started) -> None:
    (tmp_path / "mlflow.db").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, stdout, stderr = call("ui", "--out", tmp_path, "--port", port)
    assert (code, stdout) == (0, "")
    assert f"mine: http://127.0.0.1:{port}/#/experiments/7/runs" in stderr
    ((program, arguments, environment),) = servers
    assert program == sys.executable
    options = dict(pairwise(arguments))
    assert options["--host"] == "127.0.0.1"
    assert options["--port"] == str(port)
    assert options["--allowed-hosts"] == f"127.0.0.1:{port},localhost:{port}"
    assert options["--backend-store-uri"] == options["--registry-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_law_of_mixtures_needs_runs(call: Call, tmp_path: Path) -> None:
    config = small_config(tmp_path, stream={"first": 1, "scorer": "perplexity"})
    Experiment(config, tuple(plan(config))).save()
    code, _, err = call("mixture-law", "small", "--task", "reviews", "--out", str(tmp_path))
    assert code == 2
    assert err.strip() == (
        "error: a law of mixtures takes 8 runs or more, of 3 shares and two numbers of tokens; found 0 of 0 shares and 0 numbers"
    )


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_a_port_that_is_none_is_one_line(port: int, call: Call, tmp_path: Path, servers: Started) -> None:
    (tmp_path / "mlflow.db").touch()
    code, stdout, stderr = call("ui", "--port", port, "--out", tmp_path)
    assert (code, stdout, stderr) == (2, "", f"error: --port: {port} is none; allowed: 1 to 65535\n")
    assert servers == []
