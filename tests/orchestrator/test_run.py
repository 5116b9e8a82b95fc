"""`orchestrator evaluate` where a state cannot be scored: a line that names a log, the journal, and exit code 1."""

from __future__ import annotations

import contextlib
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import cli
from orchestrator.bench.made_records import Size, make_experiment
from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.run import _tell_states_to_make_again, evaluate_experiment, run_experiment, run_planned
from orchestrator.store import events
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.scores import score_file
from orchestrator.store.view import View, read_view
from orchestrator.tracking import MlflowSync
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.orchestrator.states import make_states, planned, states_of


@pytest.mark.slow
def test_a_scoring_failure_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path / "out", model="tiny-bert")
    (sequence,) = plan(config)
    Experiment(config, (sequence,)).save()
    run_sequence(sequence, evaluate=False, until=1)

    def broken(self: Any, sequence: Any, tasks_seen: int) -> None:
        raise KeyError(f"scorer of state {tasks_seen}")

    monkeypatch.setattr("orchestrator.run.StateScorer.score", broken)
    monkeypatch.setattr("sys.argv", ["orchestrator", "evaluate", "small", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    screen = capsys.readouterr()
    assert left.value.code == 1
    log = tmp_path / "out" / "logs" / sequence.id / "scoring-after-1.log"
    line = f"scoring {sequence.id} after task 1 failed: KeyError: 'scorer of state 1'; log: {log}"
    assert line in screen.out
    assert f'File "{__file__}"' in log.read_text()
    noted = [
        e for e in Tail(journal_folder(sequence.out, sequence.id)).new_events() if isinstance(e, events.ScoringFailed)
    ]
    assert [e.tasks_seen for e in noted] == [0, 1]
    assert noted[1].log == str(log)
    assert "scorer of state 1" in noted[1].traceback


def test_what_is_complete_is_pruned_and_found_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_cluster() -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("orchestrator.run.cluster", no_cluster)
    config = small_config(tmp_path / "out", stream={"first": 2}, checkpoints={"keep": "last"})
    (sequence,) = plan(config)
    run_sequence(sequence)
    assert states_of(sequence) == [1, 2]
    sync = MlflowSync(tracking_uri(config), "small", config.out)
    try:
        for _ in range(2):
            output = StringIO()
            result, problems = run_planned(config, [sequence], Console(file=output, width=120), sync)
            assert problems == []
            assert result["sequences"][0]["status"] == "finished"
            assert states_of(sequence) == [2]
            assert "trained again" not in output.getvalue()
    finally:
        sync.close(60)


def test_states_that_have_to_be_trained_again_are_said(tmp_path: Path) -> None:
    sequence, _ = planned(tmp_path)
    store = make_states(sequence, 0, 1, 2)
    output = StringIO()
    _tell_states_to_make_again([sequence], Console(file=output, width=120))
    assert output.getvalue() == ""
    for tasks_seen in (1, 2):
        store.prune(sequence.keys[tasks_seen])
    _tell_states_to_make_again([sequence], Console(file=output, width=120))
    line = "warning: 2 states that were pruned are trained again, on the way to what is missing"
    assert output.getvalue().strip() == line


@pytest.mark.slow
def test_evaluate_adds_the_scores_before_a_tasks_turn_that_the_run_did_not_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two tasks, 3 of 6 scores; the journal, which says that these were all, then has the others too."""
    changes = {"model": "tiny-bert", "stream": {"first": 2}}
    (seen,) = plan(small_config(tmp_path / "out", **changes, evaluation={"rows": "seen"}))
    assert len(run_sequence(seen).scores) == 3
    config = small_config(tmp_path / "out", **changes)
    Experiment(config, tuple(plan(config))).save()
    monkeypatch.setattr("sys.argv", ["orchestrator", "evaluate", "small", "--out", str(tmp_path / "out"), "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    (result,) = json.loads(capsys.readouterr().out)["sequences"]
    assert None not in [score for scores in result["accuracy_matrix"] for score in scores]
    assert result["fwt"] is not None
    positions = [(e.tasks_seen, e.task_id) for e in Tail(journal_folder(seen.out, seen.id)).new_events()
                 if isinstance(e, events.ScoreComputed)]  # fmt: skip
    assert sorted(positions) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_states_go_while_the_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequence is trained in this process, where its workers would be."""
    config = small_config(tmp_path / "out", stream={"first": 3}, checkpoints={"keep": "none"})
    (sequence,) = plan(config)
    seen = []

    def train_here(sequences: Any, scaling: Any, resources: Any, placement: Any, watch: Any, name: str) -> list[str]:
        for until in (1, 2, 3):
            run_sequence(sequence, until=until)
            watch()
            seen.append(states_of(sequence))
        return []

    monkeypatch.setattr("orchestrator.run.cluster", contextlib.nullcontext)
    monkeypatch.setattr("orchestrator.run.run_on_cluster", train_here)
    monkeypatch.setattr("orchestrator.retention.SECONDS_BETWEEN_LOOKS", -1.0)
    sync = MlflowSync(tracking_uri(config), "small", config.out)
    try:
        _, problems = run_planned(config, [sequence], Console(quiet=True), sync)
    finally:
        sync.close(60)
    assert problems == []
    # the last one is what the sequence would go on from; it is through with the third
    assert seen == [[1], [2], []]
    assert read_view(sequence.out, sequence.id).status == "finished"


def test_an_evaluation_looks_at_each_journal_as_often_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is missing. A view is read when it is looked at for all, and anew for the report."""
    read = View.read
    reads: list[str] = []

    def counted(view: View, tail: Tail) -> None:
        reads.append(view.id)
        read(view, tail)

    monkeypatch.setattr(View, "read", counted)
    counts = []
    for sequences in (1, 4):
        experiment = make_experiment(tmp_path / str(sequences), Size(sequences, tasks=1, steps=1))
        reads.clear()
        result, problems = evaluate_experiment(experiment, Console(quiet=True))
        assert problems == []
        assert [sequence["status"] for sequence in result["sequences"]] == ["finished"] * sequences
        counts.append(len(reads) / sequences)
    assert counts == [2, 2]


def test_a_model_is_tried_where_something_is_left_to_do_and_before_a_new_experiments_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path / "out", model="tiny-bert", stream={"first": 1})
    (sequence,) = plan(config)
    Experiment(config, (sequence,)).save()
    run_sequence(sequence)

    def tried(source: Any, model: Any) -> None:
        raise UserError("the model was tried")

    monkeypatch.setattr("orchestrator.planning.planner.check_model", tried)
    result, problems = run_experiment(config, Console(quiet=True))
    assert (result["sequences"][0]["status"], problems) == ("finished", [])
    score_file(Path(config.out), sequence.score_keys[1][0]).unlink()
    with pytest.raises(UserError, match="the model was tried"):
        run_experiment(config, Console(quiet=True))

    def read(config: Any) -> None:
        raise AssertionError("its data was read")

    monkeypatch.setattr("orchestrator.config.stream.StreamConfig.build", read)
    with pytest.raises(UserError, match="the model was tried"):
        run_experiment(config.model_copy(update={"name": "new"}), Console(quiet=True))


def test_a_tracking_server_that_is_down_delays_the_copy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is warned of, all is done, and the command that copies it later is said."""
    monkeypatch.setattr("orchestrator.tracking.sync.PAUSE_SECONDS", 0.01)
    config = small_config(
        tmp_path / "out", model="tiny-bert", stream={"first": 1}, tracking={"uri": "http://127.0.0.1:9"}
    )
    (sequence,) = plan(config)
    run_sequence(sequence)
    output = StringIO()
    result, problems = run_experiment(config, Console(file=output, width=300))
    assert (problems, result["sequences"][0]["status"]) == ([], "finished")
    assert (
        "warning: tracking.uri: no MLflow server answers at http://127.0.0.1:9 now (ConnectionError); "
        in output.getvalue()
    )
    assert result["mlflow_behind"].startswith(
        "MLflow at http://127.0.0.1:9 is behind the journals, of which 0 % are there: "
    )
    assert result["mlflow_behind"].endswith(f"Copy the rest: orchestrator sync small --out {tmp_path / 'out'}")


def test_a_uri_that_is_none_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", tracking={"uri": "nonsense"})
    with pytest.raises(UserError, match=r"tracking\.uri: 'nonsense' is not an MLflow URI"):
        run_experiment(config, Console(quiet=True))
    assert not (tmp_path / "out").exists()
