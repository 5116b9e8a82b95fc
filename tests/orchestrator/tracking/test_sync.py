"""The thread that copies: never in the way, and what it could not copy is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.events import SequenceFinished
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.tracking import MlflowSync, experiments
from tests.orchestrator.store.examples import started
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
    down = MlflowSync("http://127.0.0.1:9", "test", str(tmp_path))
    down.follow(["one"])
    assert not down.close(60)
    assert down.trouble


def test_it_connects_before_there_is_anything_to_copy_where_that_is_expected(store: str, tmp_path: Path) -> None:
    quiet = MlflowSync(store, "expects nothing", str(tmp_path))
    assert quiet.close(60)
    expecting = MlflowSync(store, "expects news", str(tmp_path))
    expecting.expect_news()
    assert expecting.close(60), expecting.trouble
    assert "expects news" in experiments(store)
    assert "expects nothing" not in experiments(store)
