"""Whole searches through the command line on real Ray clusters: killed, failing and halved."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from orchestrator.config.loading import load_config
from orchestrator.search.choice import evaluation_sequences, freeze, frozen_config
from orchestrator.search.definition import prepare
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import metrics_after
from orchestrator.training.sequence import run_sequence
from tests.conftest import SMALL
from tests.orchestrator.test_ray import environment, ray_folder, wait_for, workers_below

pytestmark = pytest.mark.slow
__all__ = ["environment", "ray_folder"]  # fixtures
SETTINGS = [
    f"model.overrides={json.dumps(SMALL['tiny-t5'])}",
    "streams=[{name: embedded, first: 3, max_train: 96, max_test: 20}]",
    "search.streams=[{name: embedded-tuning, first: 3, max_train: 96, max_dev: 20}]",
    "training={epochs: 1, global_batch: 8, micro_batch: 8, clip: null}",
    "seeds=[42]",
]
KILLED = [
    *SETTINGS,
    "methods=[ft, ft+migu]",
    "search.trials=2",
    "search.space={training.lr: [1.0e-3, 1.0e+30], migu.ratio: [0.3, 0.6]}",
]


def command(out: Path, settings: list[str]) -> list[str]:
    """`orchestrator tune` with these settings."""
    flags = [flag for s in settings for flag in ("--set", s)]
    return [sys.executable, "-m", "orchestrator", "tune", "embedded-quick", "--out", str(out), "--json", *flags]


def tune(out: Path, environment: dict[str, str], settings: list[str]) -> dict[str, Any]:
    """Tune to the end; gives the JSON object."""
    done = subprocess.run(command(out, settings), env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def trial_events(out: Path, kind: str) -> list[dict[str, Any]]:
    file = out / "experiments" / "embedded-quick" / "search" / "trials.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def never_stopped(out: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The same search in this process without Ray: what it chooses, and each method's AA in the evaluation."""
    search = prepare(load_config("embedded-quick", KILLED, str(out)), gpu=False)
    trial_store = TrialStore(search.folder, search.settings, search.planner, search.method_searches)
    while trial := trial_store.start_next():
        with contextlib.suppress(RuntimeError):
            run_sequence(trial.sequences[0])
        trial_store.record_result(trial)
    chosen = freeze(search, trial_store)
    finals = {}
    for sequence in evaluation_sequences(search, frozen_config(search.config, chosen), chosen):
        finals[sequence.method.label] = float(np.mean(run_sequence(sequence).matrix()[-1]))
    return chosen["methods"], finals


def test_a_killed_search_resumes_to_the_same_result(tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "out"
    driver = subprocess.Popen(
        command(out, KILLED), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: trial_events(out, "trial_ended"), 180)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    ended = len(trial_events(out, "trial_ended"))
    assert 1 <= ended < 4, "it was too late to kill it"
    wait_for(lambda: not workers_below(environment["RAY_TMPDIR"]), 60)
    result = tune(out, environment, KILLED)

    proposed = [(e["method"], e["number"]) for e in trial_events(out, "trial_proposed")]
    assert sorted(proposed) == [("ft", 0), ("ft", 1), ("ft+migu", 0), ("ft+migu", 1)], "none lost, none twice"
    ends = {(e["method"], e["number"]): e["result"] for e in trial_events(out, "trial_ended")}
    assert len(trial_events(out, "trial_ended")) == len(ends) == 4
    wild = {place for place, end in ends.items() if end["status"] == "failed"}
    tried = {(e["method"], e["number"]): e["values"]["training.lr"] for e in trial_events(out, "trial_proposed")}
    assert wild == {place for place, lr in tried.items() if lr == 1e30}
    assert all("in task" in ends[place]["reason"] for place in wild)

    chosen, finals = never_stopped(tmp_path / "again")
    assert result["search"]["chosen"]["methods"] == chosen
    assert {s["method"]: s["aa"] for s in result["sequences"]} == pytest.approx(finals)
    check_mlflow(result)


def check_mlflow(result: dict[str, Any]) -> None:
    """One run for the search, its trials and its evaluation below, their sequences below these."""
    client = mlflow.MlflowClient(result["mlflow"])
    experiment = client.get_experiment_by_name("embedded-quick")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    below: dict[str, list[Any]] = {}
    for run in runs:
        below.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(run)
    (root,) = below[""]
    assert root.data.tags["holdout"] == "tasks"
    artifacts = {a.path for a in client.list_artifacts(root.info.run_id, "search")}
    assert {"search/chosen.json", "search/trials.csv", "search/parallel-ft.png"} <= artifacts
    assert root.data.tags["orchestrator.chosen_sha256"] == result["search"]["chosen"]["sha256"]
    children = {run.info.run_name: run for run in below[root.info.run_id]}
    assert set(children) == {"evaluation", *(f"embedded-quick-{m}-{n:03d}" for m in ("ft", "ft+migu") for n in (0, 1))}
    assert [len(below[run.info.run_id]) for name, run in children.items() if name != "evaluation"] == [1] * 4
    assert len(below[children["evaluation"].info.run_id]) == 2
    assert sorted(run.info.status for run in children.values()) == ["FAILED"] * 2 + ["FINISHED"] * 3
    best = result["search"]["chosen"]["methods"]["ft+migu"]
    trial = children[f"embedded-quick-ft+migu-{best['trial']:03d}"]
    assert trial.data.metrics["score"] == pytest.approx(best["score"])
    assert float(trial.data.params["migu.ratio"]) == best["values"]["migu.ratio"]


def test_asha_halves_each_method_at_rungs_of_finished_tasks(tmp_path: Path, environment: dict[str, str]) -> None:
    settings = [
        *SETTINGS,
        "methods=[ft]",
        "training.epochs=4",
        "search.trials=3",
        "search.seed=1",  # the best rate comes first, so the others are stopped
        "search.max_concurrent=1",
        "search.scheduler=asha",
        "search.reduction=2",
        "search.space={training.lr: [1.0e-6, 3.0e-3, 1.0e-2]}",
    ]
    tune(tmp_path, environment, settings)
    ends = [e["result"] for e in trial_events(tmp_path, "trial_ended")]
    search = prepare(load_config("embedded-quick", settings, str(tmp_path)), gpu=False)
    trial_store = TrialStore(search.folder, search.settings, search.planner, search.method_searches)
    seen: list[float] = []
    for trial, end in zip(trial_store.trials_of("ft"), ends, strict=True):
        score = metrics_after(trial.views(), 2)["aa"]
        assert score is not None
        # arXiv 1810.05934: goes on if among the best half of those that reached the rung before it
        goes_on = not seen or score >= np.percentile(seen, 50)
        assert (end["status"], end["tasks"]) == (("finished", 3) if goes_on else ("stopped", 2))
        seen.append(score)
    assert [end["status"] for end in ends] == ["finished", "stopped", "stopped"]
