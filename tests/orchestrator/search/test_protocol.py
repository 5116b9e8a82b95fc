"""Both phases in order: without Ray where all is there, and through the command line on real Ray clusters, killed and halved."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any, cast

import mlflow
import numpy as np
import pytest
from rich.console import Console

from orchestrator.config.experiment import RunConfig
from orchestrator.config.loading import load_config
from orchestrator.config.running import CheckpointsConfig
from orchestrator.errors import SequenceFailed
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.results import results
from orchestrator.search.choice import evaluation_sequences, freeze, frozen_config
from orchestrator.search.definition import prepare
from orchestrator.search.protocol import evaluation_phase, tune_experiment
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import metrics_after
from orchestrator.store.journal import Tail
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import SearchChosen, SearchFinished, SearchFrozen, SearchStarted
from orchestrator.training.sequence import run_sequence
from tests.conftest import SMALL
from tests.orchestrator.search.searches import (
    freeze_and_save,
    open_evaluation,
    open_search,
    score_trials,
    search_config,
    steady,
    train_trials,
    write_scores,
)
from tests.orchestrator.states import states_of
from tests.orchestrator.test_ray import environment, ray_folder, wait_for

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
    "search.space={training.lr: [1.0e-3, 1000.0], migu.ratio: [0.3, 0.6]}",
]


def workers_below(folder: str) -> list[int]:
    """Processes of the Ray cluster with that temporary folder."""
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "environ", "name"]):
        if (process.info["environ"] or {}).get("RAY_TMPDIR") == folder and "RayTrainWorker" in " ".join(
            _command_line(process)
        ):
            found.append(process.info["pid"])
    return found


def _command_line(process: Any) -> list[str]:
    import psutil

    try:
        line: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return line


def search_events(folder: Path) -> list[Event]:
    """The search's own events, without those of its trials."""
    kinds = (SearchStarted, SearchChosen, SearchFrozen, SearchFinished)
    return [event for event in Tail(folder).new_events() if isinstance(event, kinds)]


class FakeSync:
    """Stands for the copy in MLflow: which sequences it was told to follow."""

    def __init__(self) -> None:
        self.followed: set[str] = set()
        self.closed = 0

    def follow(self, ids: Iterable[str]) -> None:
        self.followed.update(ids)

    def close(self, *arguments: object) -> bool:
        self.closed += 1
        return True


@pytest.fixture
def sync(monkeypatch: pytest.MonkeyPatch) -> FakeSync:
    fake = FakeSync()
    monkeypatch.setattr("orchestrator.search.protocol.sync_of", lambda *arguments: fake)
    return fake


@pytest.mark.slow
def test_what_is_complete_is_reported_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: FakeSync
) -> None:
    """And once: the same command again records nothing new."""

    def no_cluster() -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("orchestrator.search.protocol.cluster", no_cluster)
    monkeypatch.setattr("orchestrator.run.cluster", no_cluster)
    config = search_config(tmp_path, ["ft"]).model_copy(update={"checkpoints": CheckpointsConfig(keep="last")})
    search, trial_store = open_search(config)
    train_trials(trial_store)
    chosen = freeze(search, trial_store)
    (sequence,) = evaluation_sequences(search, frozen_config(config, chosen), chosen)
    view = run_sequence(sequence)
    trials = [trial.sequences[0] for trial in trial_store.all_trials()]
    assert [states_of(each) for each in (*trials, sequence)] == [[1, 2, 3]] * 3

    searches = []
    for _ in range(2):
        output = StringIO()
        result, problems = tune_experiment(config, Console(width=200, file=output))
        assert problems == []
        assert "chosen for ft: lr 0.00" in output.getvalue()
        assert result["mlflow_behind"] is None
        del result["search"]["test_access_log"]  # each planning reads the hashes again
        searches.append(result["search"])
    assert searches[0] == searches[1]
    assert sync.followed == {sequence.id, *(trial.sequences[0].id for trial in trial_store.all_trials())}
    assert sync.closed == 2, "once a run"
    assert [states_of(each) for each in (*trials, sequence)] == [[3]] * 3, "of trials too the last state stays alone"
    method = searches[0]["methods"]["ft"]
    best = trial_store.best("ft")
    assert best
    assert method["tuning_score"] == trial_store.results[best.key].score
    assert method["evaluation_score"] == pytest.approx(view.matrix()[-1].mean())

    events = search_events(search.folder)
    assert sorted(event.name for event in events) == [
        "search_chosen",
        "search_finished",
        "search_frozen",
        "search_started",
    ]
    (frozen,) = (event for event in events if isinstance(event, SearchFrozen))
    assert frozen.sha256 == chosen["sha256"]
    assert [Path(file).name for file in frozen.files] == ["chosen.json", "search.json", "trials.csv", "parallel-ft.png"]
    assert all(Path(file).exists() for file in frozen.files)


def test_a_run_that_failed_in_the_evaluation_leaves_its_method_without_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: FakeSync
) -> None:
    """What MLflow gets says so; when the run has finished after all, it gets the score."""
    config = search_config(tmp_path, ["ft"]).model_copy(update={"seeds": (7, 8)})
    search, trial_store = open_search(config)
    score_trials(trial_store, {"ft": [41.0, 73.5]})
    chosen = freeze_and_save(search, trial_store)
    first, second = open_evaluation(search, chosen).sequences
    write_scores(first, steady(58.0))

    def nothing_is_trained(frozen: RunConfig, sequences: list[SequencePlan], *rest: Any) -> tuple[Any, list[str]]:
        return results(Experiment(frozen, tuple(sequences))), []

    monkeypatch.setattr("orchestrator.search.protocol.run_planned", nothing_is_trained)
    write_scores(second, steady(0.0)[:1], failure="the loss is nan")
    evaluation_phase(search, chosen, cast(Any, sync), Console(file=StringIO()))
    write_scores(second, steady(62.0))
    evaluation_phase(search, chosen, cast(Any, sync), Console(file=StringIO()))
    half, whole = (event for event in search_events(search.folder) if isinstance(event, SearchFinished))
    assert not half.is_complete
    assert (half.summary["ft/evaluation_score"], half.summary["ft/runs_finished"]) == (None, 1)
    assert half.summary["ft/runs_planned"] == 2
    assert whole.is_complete
    assert (whole.summary["ft/evaluation_score"], whole.summary["ft/runs_finished"]) == (60.0, 2)


def test_a_search_of_which_no_trial_finished_fails_with_the_first_reason(tmp_path: Path, sync: FakeSync) -> None:
    config = search_config(tmp_path, ["ft"])
    search, trial_store = open_search(config)
    score_trials(trial_store, {"ft": ["the loss is nan", "the disk is full"]})
    with pytest.raises(SequenceFailed, match=r"no trial of any method finished.*: the loss is nan"):
        tune_experiment(config, Console(file=StringIO()))
    assert sync.closed == 1
    assert not any(isinstance(event, SearchFinished) for event in search_events(search.folder))


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


@pytest.mark.slow
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

    begun = [(e["method"], e["number"]) for e in trial_events(out, "trial_suggested")]
    assert sorted(begun) == [("ft", 0), ("ft", 1), ("ft+migu", 0), ("ft+migu", 1)], "none lost, none twice"
    ends = {(e["method"], e["number"]): e["result"] for e in trial_events(out, "trial_ended")}
    assert len(trial_events(out, "trial_ended")) == len(ends) == 4
    failed = {trial for trial, end in ends.items() if end["status"] == "failed"}
    tried = {(e["method"], e["number"]): e["values"]["training.lr"] for e in trial_events(out, "trial_suggested")}
    assert failed == {trial for trial, lr in tried.items() if lr == 1000}
    assert all("in task" in ends[trial]["reason"] for trial in failed)

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


@pytest.mark.slow
def test_asha_halves_each_method_at_rungs_of_finished_tasks(tmp_path: Path, environment: dict[str, str]) -> None:
    settings = [
        *SETTINGS,
        "methods=[ft]",
        "training.epochs=4",
        "search.trials=3",
        "search.seed=1",  # the best rate comes first, so the others are stopped
        "search.at_once=1",
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
