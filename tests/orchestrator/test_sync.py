"""`orchestrator sync`: what is missing in MLflow comes, what differs is mended, and a search's trials are followed too."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.bench.made_records import Size, make_experiment
from orchestrator.errors import UserError
from orchestrator.planning.experiment import PLANS, Experiment, search_folder
from orchestrator.retention import note_trial
from orchestrator.run import exclusive_run
from orchestrator.store.journal import Journal
from orchestrator.store.records.search_events import SearchStarted
from orchestrator.sync import find_copied, print_sync, sync_run

Call = Callable[..., tuple[int, str, str]]


def rows(out: Path) -> dict[str, list[Any]]:
    """What is in a store, but for ids."""
    active = "lifecycle_stage = 'active'"
    with sqlite3.connect(out / "mlflow.db") as database:
        return {
            "runs": sorted(database.execute(f"SELECT name, status, start_time, end_time FROM runs WHERE {active}")),
            "models": sorted(database.execute(f"SELECT name FROM logged_models WHERE {active}")),
            "metrics": sorted(
                database.execute(
                    "SELECT m.key, m.value, m.step, m.timestamp FROM metrics m JOIN runs r USING (run_uuid)"
                    f" WHERE r.{active}"
                )
            ),
        }


@pytest.mark.slow
def test_a_store_that_was_deleted_is_restored_and_one_that_differs_mended(call: Call, tmp_path: Path) -> None:
    """Two sequences of one task: 2 + 2 runs and 2 models."""
    out = tmp_path / "runs"
    make_experiment(out, Size(sequences=2, tasks=1, steps=3))
    code, stdout, stderr = call("sync", "scale", "--out", out)
    assert code == 0, (stdout, stderr)
    lines = stdout.splitlines()
    assert lines[-2].startswith("in step: 4 runs, 2 models and ")
    assert lines[-2].endswith(" points of metrics of 2 sequence(s) are in MLflow as the journals say")
    assert lines[-1] == f"open it: orchestrator ui --out {out}"
    before = rows(out)
    assert (len(before["runs"]), len(before["models"])) == (4, 2)
    (out / "mlflow.db").unlink()
    shutil.rmtree(out / "mlartifacts")
    assert call("sync", "scale", "--out", out)[0] == 0
    assert rows(out) == before
    with sqlite3.connect(out / "mlflow.db") as database:
        database.execute("UPDATE runs SET status = 'RUNNING' WHERE name LIKE '1 %'")
    code, stdout, stderr = call("sync", "scale", "--out", out, "--json")
    assert code == 0
    result = json.loads(stdout)
    assert (result["in_step"], result["compared"]["runs"], result["differences"]) == (True, 4, [])
    assert result["mended"] == ["run '1 task-01' is RUNNING in place of FINISHED"] * 2
    assert "mended: run '1 task-01' is RUNNING in place of FINISHED" in stderr
    assert rows(out) == before


def test_a_server_that_is_down_is_exit_code_1_and_the_command_to_give_later(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.sync.PAUSE_SECONDS", 0.01)
    made = make_experiment(tmp_path / "runs", Size(sequences=1, tasks=1, steps=1))
    uri = "http://someone:secret@127.0.0.1:9"
    # the configuration keeps no password
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracking = made.config.tracking.model_copy(update={"uri": uri})
    Experiment(made.config.model_copy(update={"tracking": tracking}), made.sequences).save()
    code, stdout, stderr = call("sync", "scale", "--out", tmp_path / "runs")
    assert code == 1
    assert "MLflow at http://***@127.0.0.1:9 is behind the journals, of which 0 % are there: " in stdout
    assert stdout.splitlines()[-1] == f"once more: orchestrator sync scale --out {tmp_path / 'runs'}"
    assert "Traceback" not in stdout + stderr


def test_one_process_at_a_time(tmp_path: Path) -> None:
    made = make_experiment(tmp_path, Size(sequences=1, tasks=1, steps=1))
    with exclusive_run(made.config), pytest.raises(UserError, match="is being run by another process"):
        sync_run("scale", str(tmp_path), Console(quiet=True))
    with pytest.raises(UserError, match="no experiment 'nothing'"):
        sync_run("nothing", str(tmp_path), Console(quiet=True))


def test_a_search_is_followed_with_its_trials_also_before_its_evaluation(tmp_path: Path) -> None:
    made = make_experiment(tmp_path, Size(sequences=3, tasks=1, steps=1))
    folder = search_folder(str(tmp_path), "scale")
    (made.folder / PLANS).unlink()
    Journal(folder, "search").append(SearchStarted(config=made.config.model_dump(mode="json")))
    assert find_copied("scale", str(tmp_path)).sequence_ids == ()
    note_trial(str(tmp_path), "scale", made.sequences[:2])
    copied = find_copied("scale", str(tmp_path))
    assert copied.sequence_ids == ("ft-made-s0", "ft-made-s1")
    assert (copied.search, copied.config.name) == (folder, "scale")
    Experiment(made.config, made.sequences[1:]).save()
    copied = find_copied("scale", str(tmp_path))
    assert (copied.search, copied.sequence_ids) == (folder, ("ft-made-s0", "ft-made-s1", "ft-made-s2"))


def test_of_many_lines_the_first_are_shown() -> None:
    result = {"mended": [f"run {number}" for number in range(25)], "differences": ["run 7"], "in_step": False,
              "behind": "MLflow differs", "sequences": 1, "compared": {"runs": 1, "models": 1, "points": 1}}  # fmt: skip
    output = StringIO()
    print_sync(result, Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    assert len(lines) == 20 + 1 + 1 + 1
    assert lines[20:] == ["mended: 5 more", "differs: run 7", "MLflow differs"]
