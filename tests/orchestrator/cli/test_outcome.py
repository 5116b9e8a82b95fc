"""What a command prints at its end, and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.outcome import finish, shown
from tests.orchestrator.report.examples import result_of


def outcome(**changes: Any) -> dict[str, Any]:
    """The result of an experiment with one sequence."""
    return {
        "experiment": "small", "sequences": [result_of(**changes)], "damaged_lines": None, "mlflow": "sqlite:///mlflow.db",
        "mlflow_behind": None, "out": "runs", "report": "runs/summary.csv",
    }  # fmt: skip


def failure(traceback: str) -> dict[str, Any]:
    return {"traceback": traceback, "task": "reviews", "step": 3, "worker": 0, "log": "worker-0.log"}


@pytest.mark.parametrize(
    ("status", "problems", "code"), [("finished", [], 0), ("failed", [], 1), ("finished", ["the workers gave up"], 1)]
)
def test_the_exit_code(status: str, problems: list[str], code: int) -> None:
    assert finish(outcome(status=status), problems, as_json=False) == code


def test_debug_prints_the_tracebacks_of_training_and_of_scoring(capsys: pytest.CaptureFixture[str]) -> None:
    of_training = failure("Traceback: my_plugin.py, line 7 [red]")
    of_scoring = failure("Traceback: my_tuning.py, line 9")
    failed = outcome(status="failed", reason="KeyError: 'x'", failure=of_training, scoring_failures=[of_scoring])
    finish(failed, [], as_json=False)
    assert "Traceback" not in capsys.readouterr().out
    finish(failed, [], as_json=False, debug=True)
    screen = capsys.readouterr().out
    assert "my_plugin.py, line 7 [red]" in screen
    assert "my_tuning.py, line 9" in screen


def test_a_path_is_shown_as_it_is_shortest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(str(tmp_path / "runs" / "summary.csv")) == "runs/summary.csv"
    assert shown("/x") == "/x"
