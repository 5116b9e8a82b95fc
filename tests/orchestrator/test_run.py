"""`orchestrator evaluate` where a state cannot be scored: a line that names a log, the journal, and exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import cli
from orchestrator.bench.made_records import Size, make_experiment
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.run import evaluate_experiment
from orchestrator.store import events
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config


@pytest.mark.slow
def test_a_scoring_failure_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path / "out", model="tiny-bert")
    (sequence,) = plan(config)
    Experiment(config, (sequence,)).save()
    run_sequence(sequence, evaluate=False, until=1)

    def broken(sequence: Any, tasks_seen: int) -> None:
        raise KeyError(f"scorer of state {tasks_seen}")

    monkeypatch.setattr("orchestrator.run.score_state", broken)
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
