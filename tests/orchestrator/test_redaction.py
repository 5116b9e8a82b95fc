"""Passwords and tokens: which are known as such, what stays as it is, and that none is in any file or on the screen."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import shortened
from orchestrator.planning.experiment import Experiment, open_experiment, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.redaction import RedactingStream, has_uri_secret, redacted, redacted_values
from orchestrator.store.view import read_view
from orchestrator.tracking import MlflowSync
from orchestrator.training.sequence import SequenceFailed, run_sequence
from tests.conftest import small_config

Call = Callable[..., tuple[int, str, str]]

HIDDEN = [
    ("https://user:secret@host/path", "https://***@host/path"),
    ("https://secret@host", "https://***@host"),
    ("postgresql://u:secret@h/db", "postgresql://***@h/db"),
    ("mysql+pymysql://u:sec@r/et@h/db", "mysql+pymysql://***@h/db"),
    ("at 'http://u:secret@127.0.0.1:9' (refused)", "at 'http://***@127.0.0.1:9' (refused)"),
    ("/api?run=1&access_token=secret HTTP", "/api?run=1&access_token=*** HTTP"),
    ("https://h/a.csv?X-Amz-Signature=secret&v=2", "https://h/a.csv?X-Amz-Signature=***&v=2"),
    ('{"a": "s3://key:secret@bucket", "b": "x@y"}', '{"a": "s3://***@bucket", "b": "x@y"}'),
]
SHOWN = [
    "http://127.0.0.1:5000/a@b",
    "hf://datasets/user/set@main/a.csv",
    "abfs://container@account.dfs.core.windows.net/a",
    "sqlite:////tmp/a:b@c/mlflow.db",
    "mail a@b: the key = 3, token=x",
    "https://h/a.csv?page=2",
]


@pytest.mark.parametrize(("text", "without"), HIDDEN)
def test_the_secrets_of_a_uri_are_hidden(text: str, without: str) -> None:
    assert redacted(text) == without
    assert has_uri_secret(text)
    # what is redacted already stays as it is
    assert redacted(without) == without and not has_uri_secret(without)


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert redacted(text) == text


def test_the_secrets_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HF_TOKEN": "hf_planted",
        "AWS_SECRET_ACCESS_KEY": "hf_planted+more",
        "MLFLOW_TRACKING_PASSWORD": "20261128",
        "TOKENIZERS_PARALLELISM": "false-or-true",
        "SHORT_TOKEN": "true",
    }.items():
        monkeypatch.setenv(name, value)
    text = "hf_planted+more and hf_planted, true; false-or-true; 20261128 but 202611281"
    assert redacted(text) == "*** and ***, true; false-or-true; *** but 202611281"
    assert redacted_values({"a": [1, "x hf_planted"], "b": None}) == {"a": [1, "x ***"], "b": None}


def test_a_stream_writes_redacted_text_and_is_else_what_it_was() -> None:
    inner = io.StringIO()
    stream = RedactingStream(inner)
    text = "http://u:secret@h\n"
    assert stream.write(text) == len(text)
    stream.writelines([text])
    assert inner.getvalue() == "http://***@h\n" * 2
    assert stream.isatty() is False


def test_a_kept_uri_is_completed_from_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = small_config(tmp_path, tracking={"uri": "http://u:planted-one@127.0.0.1:9/a"})
    Experiment(config, tuple(plan(config))).save()
    kept = open_experiment("small", str(tmp_path)).config
    assert kept.tracking.uri == "http://***@127.0.0.1:9/a"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, stdout, stderr = call("sync", "small", "--out", tmp_path)
    assert (code, stdout) == (2, "")
    assert stderr == (
        "error: tracking.uri: http://***@127.0.0.1:9/a has no password, which is kept nowhere; give the whole URI in "
        "MLFLOW_TRACKING_URI\n"
    )
    # of another server it is not taken
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:planted-one@127.0.0.1:9/b")
    assert call("sync", "small", "--out", tmp_path)[0] == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:planted-one@127.0.0.1:9/a")
    assert tracking_uri(kept) == "http://u:planted-one@127.0.0.1:9/a"
    # a report asks no server
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert call("report", "small", "--out", tmp_path)[0] == 0


def test_an_address_with_a_password_is_refused_but_for_the_tracking_server(call: Call, tmp_path: Path) -> None:
    streams = "streams=[{name: own, tasks: [{name: a, train: 'https://u:planted-one@h/a.csv', test: b.csv, text: t, label: l}]}]"
    code, stdout, stderr = call("run", "--set", streams, "--out", tmp_path / "out")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: streams.0.tasks.0.train: https://***@h/a.csv has a password or a token in it")
    assert stderr.count("\n") == 1
    # a mistake is told with what was given
    code, _, stderr = call("run", "--set", "tracking=https://u:planted-one@h", "--out", tmp_path / "out")
    assert code == 2
    assert "https://***@h" in stderr and "planted-one" not in stderr


def test_what_is_cut_to_a_line_is_redacted_before() -> None:
    assert "secret" not in shortened("a" * 170 + " https://u:secret" + "s" * 200 + "@h")
    assert shortened("https://u:secret@h") == "https://***@h"


PLUGIN = """
import os

from methods import Method


class Leaky(Method):
    def before_task(self, model, task_id, batches):
        if task_id == 1:
            raise RuntimeError(f"no answer from https://u:pl4nted-in-uri@h?token=pl4nted-token with {os.environ['HF_TOKEN']}")
"""


@pytest.mark.slow
def test_a_planted_secret_is_in_no_file_and_on_no_screen(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A task that fails with it, a server that does not answer, a copy in an sqlite store, and every command after them."""
    (tmp_path / "leaky_part.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("HF_TOKEN", "pl4nted-in-environment")
    uri = "http://u:pl4nted-password@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    out = tmp_path / "out"
    method = {"name": "leaky", "tuning": "full", "plugins": ["leaky_part.Leaky"]}
    config = small_config(out, model="tiny-bert", methods=[method], tracking={"uri": uri}, stream={"first": 2})
    (sequence,) = plan(config)
    Experiment(config, (sequence,)).save()
    with pytest.raises(SequenceFailed):
        run_sequence(sequence)
    sync = MlflowSync(f"sqlite:///{out}/mlflow.db", "small", str(out))
    sync.follow([sequence.id])
    assert sync.close(60), sync.trouble
    said = ""
    kept = ("small", "--out", out, "--json")
    wrong = ("--set", f"tracking.uri={uri}/x?token=pl4nted-token", "--set", "methods=[no]")
    for arguments in (("evaluate", *kept, "--debug"), ("sync", *kept), ("report", *kept), ("run", *wrong)):
        _, stdout, stderr = call(*arguments)
        said += stdout + stderr
    # it was there to be hidden
    failed = read_view(out, sequence.id).failed
    assert failed is not None and failed.reason == "RuntimeError: no answer from https://***@h?token=*** with ***"
    assert "***@127.0.0.1:9" in said
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"mlflow.db", "tracking.log", "worker-0.log", "config.yaml"} <= {path.name for path in files}
    assert "pl4nted" not in said
    assert [path for path in files if b"pl4nted" in path.read_bytes()] == []


def test_whatever_a_command_prints_has_no_password(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library prints too, which passes none of our own lines."""

    def talk(**options: object) -> None:
        print("http://u:secret@h")
        print("http://u:secret@h", file=sys.stderr)

    monkeypatch.setattr("orchestrator.cli.app", talk)
    assert call("list") == (0, "http://***@h\n", "http://***@h\n")
