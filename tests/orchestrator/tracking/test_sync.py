"""The thread that copies: never in the way, and what it could not copy is said."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.events import SequenceFinished
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.tracking import MlflowSync, experiments
from orchestrator.tracking.runs import Runs
from tests.orchestrator.store.examples import started, step
from tests.orchestrator.tracking.journals import Copied, begun, write
from tests.orchestrator.tracking.mlflow_runs import runs


def test_what_is_recorded_before_the_closing_is_copied(store: str, tmp_path: Path) -> None:
    """Whenever a sequence joined, and however soon the command ends after its last line."""
    journals = []
    for sequence_id in ("early", "late"):
        described = {"method": {"name": sequence_id}, "stream": {"name": "papers"}, "seed": 3}
        journals.append(Journal(journal_folder(tmp_path, sequence_id)))
        journals[-1].append(started("a").model_copy(update={"sequence": described}))
    copy = MlflowSync(store, "test", str(tmp_path))
    copy.follow(["early"])
    copy.follow(["early", "late"])
    for journal in journals:
        journal.append(SequenceFinished())
    assert copy.close(60), copy.trouble
    for sequence_id in ("early", "late"):
        (run,) = runs(store, sequence_id)
        assert (run.info.run_name, run.info.status) == (f"{sequence_id} · papers · seed 3", "FINISHED")
    assert "test" in experiments(store)
    assert "Default" not in experiments(store)


def test_a_server_that_is_down_delays_the_copy_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Journal(journal_folder(tmp_path, "one")).append(started("a"))
    down = MlflowSync("http://me:secret@127.0.0.1:9", "test", str(tmp_path))
    down.follow(["one"])
    assert not down.close(60)
    assert (
        down.trouble
        == "API request to http://***@127.0.0.1:9/api/2.0/mlflow/experiments/get-by-name failed (ConnectionError)"
    )


def test_it_connects_before_there_is_anything_to_copy_where_that_is_expected(store: str, tmp_path: Path) -> None:
    quiet = MlflowSync(store, "expects nothing", str(tmp_path))
    assert quiet.close(60)
    expecting = MlflowSync(store, "expects news", str(tmp_path))
    expecting.expect_news()
    assert expecting.close(60), expecting.trouble
    assert "expects news" in experiments(store)
    assert "expects nothing" not in experiments(store)


@pytest.fixture
def slow_store(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each call takes a quarter of a second, and each 20 lines are noted; gives the number of points of each call."""
    monkeypatch.setattr("orchestrator.tracking.sequence_runs.EVENTS_PER_NOTE", 20)
    sent: list[int] = []
    log_metrics = Runs.log_metrics

    def slow(runs: Runs, run_id: str, metrics: Sequence[Any]) -> None:
        time.sleep(0.25)
        sent.append(len(metrics))
        log_metrics(runs, run_id, metrics)

    monkeypatch.setattr(Runs, "log_metrics", slow)
    return sent


@pytest.mark.slow
def test_it_waits_while_there_is_progress_and_says_how_much_is_there(copied: Copied, slow_store: list[int]) -> None:
    """Five seconds at least, with a patience of three."""
    write(
        copied.out, [*begun()[:2], *(step(0, number).model_copy(update={"time": number}) for number in range(1, 200))]
    )
    sync = MlflowSync(copied.uri, "test", str(copied.out))
    sync.follow(["s"])
    lines: list[str] = []
    assert sync.close(3, lines.append), sync.trouble
    assert len(slow_store) * 0.25 > 5
    percents = [int(line.removeprefix("copying to MLflow: ").partition(" %")[0]) for line in lines]
    assert percents == sorted(set(percents)) and percents[0] < 100


def test_each_short_start_gets_further(copied: Copied, slow_store: list[int]) -> None:
    """Killed as soon as anything is noted, until all is there; what was noted is not sent again."""
    write(
        copied.out, [*begun()[:2], *(step(0, number).model_copy(update={"time": number}) for number in range(1, 101))]
    )
    size = (journal_folder(copied.out, "s") / "train.jsonl").stat().st_size
    ends = [0]
    while ends[-1] < size and len(ends) < 20:
        process = multiprocessing.get_context("fork").Process(target=copied.copy)
        process.start()
        while process.is_alive() and noted(copied.out) == ends[-1]:
            time.sleep(0.01)
        process.kill()
        process.join()
        ends.append(noted(copied.out))
    assert ends == sorted(set(ends))
    assert len(ends) >= 4, "several starts"
    losses = [number for key, _, number, _ in copied.rows()["metrics"] if key == "loss"]
    assert sorted(set(losses)) == list(range(1, 101))


def noted(out: Path) -> int:
    """Up to where the training's file is noted to be copied."""
    for file in (out / "tracking").rglob("s.json"):
        return int(json.loads(file.read_text())["files"]["train.jsonl"][0])
    return 0
