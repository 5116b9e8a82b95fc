"""The commands with `--out s3://…`: what they read there, and what they say where there is nothing to be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.storage.places import folder_at, local_folder
from orchestrator.store.integrity import unseal
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def out(bucket: str) -> str:
    """An experiment of one sequence that was trained, whose report nobody has asked for."""
    out = f"{bucket}/runs"
    config = small_config(out, stream={"first": 2})
    experiment = Experiment(config, tuple(plan(config)))
    experiment.save()
    run_sequence(experiment.sequences[0])
    return out


def test_what_was_trained_is_reported_shown_and_pruned(out: str, call: Call) -> None:
    code, stdout, _ = call("report", "small", "--matrices", "--out", out)
    assert code == 0 and f"CSV: {out}/experiments/small/summary.csv" in stdout
    assert (folder_at(out) / "experiments" / "small" / "summary.csv").read_text().startswith("method,stream,seed")
    # the folder itself is a name for it, too
    code, stdout, _ = call("report", f"{out}/experiments/small", "--json")
    assert code == 0 and json.loads(stdout.splitlines()[-1])["sequences"][0]["status"] == "finished"
    code, stdout, _ = call("predictions", "small", "--task", "reviews", "--limit", "2", "--out", f"{out}/")
    assert code == 0 and f"--out {out}" in stdout
    code, stdout, _ = call("verify", "small", "--out", out)
    assert code == 0 and "1 sequences, every file is what was written" in stdout
    code, stdout, _ = call("prune", "small", "--dry-run", "--out", out)
    assert code == 0 and "1 state, " in stdout and "would go" in stdout
    code, stdout, _ = call("prune", "small", "--out", out, "--json")
    assert code == 0 and json.loads(stdout.splitlines()[-1])["states"] == 1
    code, stdout, _ = call("prune", "small", "--out", out)
    assert code == 0 and "0 states" in stdout


def test_what_is_damaged_is_found_and_put_aside(out: str, call: Call) -> None:
    root = folder_at(out)
    (score,) = [file for file in sorted((root / "scores").iterdir()) if file.suffix == ".json"][:1]
    (journal,) = (root / "sequences").glob("*/*.jsonl")
    (weights, *_) = (root / "checkpoints").glob("*/weights.safetensors")
    sound = unseal(score.read_bytes())
    for file in (score, weights, journal):
        content = file.read_bytes()
        file.write_bytes(content.replace(b'"', b"'", 1)[:-10])
    code, stdout, _ = call("verify", "small", "--out", out, "--json")
    assert code == 1
    damaged = {row["file"] for row in json.loads(stdout.splitlines()[-1])["damaged"]}
    assert damaged == {str(file).removeprefix(f"{out}/") for file in (score, weights.parent, journal)}
    code, stdout, stderr = call("verify", "small", "--out", out, "--repair")
    assert code == 0, stderr
    assert unseal(score.read_bytes()) == sound and not weights.exists()
    assert len(list((root / "checkpoints").glob("*.corrupt-*"))) == 1
    assert len(list(journal.parent.glob("*.jsonl.damaged-*"))) == 1
    code, _, _ = call("report", "small", "--out", out)
    assert code == 0


@pytest.mark.slow
def test_what_lacks_scores_is_evaluated_and_copied_to_mlflow_on_this_machine(out: str, call: Call) -> None:
    for file in (folder_at(out) / "scores").iterdir():
        if file.suffix == ".json":
            file.unlink()
    code, stdout, stderr = call("evaluate", "small", "--out", out, "--json")
    assert code == 0, stderr
    result = json.loads(stdout.splitlines()[-1])
    assert result["mlflow"] == f"sqlite:///{local_folder(out)}/mlflow.db" and result["mlflow_behind"] is None
    client = mlflow.MlflowClient(result["mlflow"])
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 3
    (first, *_) = client.search_logged_models([experiment.experiment_id])
    assert first.tags["checkpoint_uri"].startswith(f"{out}/checkpoints/")


@pytest.mark.parametrize(
    ("command", "uri", "line"),
    [
        (["run"], "{bucket}-other/runs", "out: {bucket}-other/runs: there is no such bucket"),
        (["report", "small"], "{bucket}-other", "there is no such bucket"),
        (["report", "small"], "{bucket}", "no experiment 'small' in '{bucket}/': it has none"),
        (["prune", "small"], "gs://bucket", "'gs://bucket' is neither a folder nor of the form s3://bucket/prefix"),
        (["evaluate", "small"], "s3://key:secret@bucket", "credentials and options have no place in a URI"),
        (["ui"], "{bucket}", "no MLflow store at"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    command: list[str], uri: str, line: str, bucket: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = call(*command, "--out", uri.format(bucket=bucket))
    assert (code, stdout) == (2, "")
    assert line.format(bucket=bucket) in stderr and stderr.count("\n") == 1
    assert "secret" not in stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"], "a URI was taken for a path"
