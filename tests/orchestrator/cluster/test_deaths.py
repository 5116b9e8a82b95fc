"""What is noted of workers that ended without a word, and of which others nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from orchestrator.cluster import deaths
from orchestrator.cluster.deaths import NoteDeaths
from orchestrator.cluster.ray_logs import RayProcess
from orchestrator.errors import NonFiniteLoss, Preempted, SequenceFailed, WorkerFailed
from orchestrator.store.failure_notes import noted_failures

MESSAGE = "The actor is dead. Worker exit type: SYSTEM_ERROR Worker exit detail: it was killed"
PROCESS = RayProcess(pid=42, machine="10.0.0.7", node_id="node", worker_id="abc", session_logs="/ray", attempt="a7")


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Tells the callback of those errors by rank; gives for whom Ray's logs were fetched, which needs a cluster."""
    fetched: list[tuple[Any, ...]] = []
    monkeypatch.setattr(deaths, "copy_ray_logs", lambda *asked: fetched.append(asked))

    def tell(errors: dict[int, Exception]) -> list[tuple[Any, ...]]:
        NoteDeaths("group-3", tmp_path / "introductions", tmp_path / "logs").after_exception(None, errors)
        return fetched

    return tell


def test_a_death_is_noted_with_its_worker_and_log(tmp_path: Path, note: Callable[..., list[tuple[Any, ...]]]) -> None:
    assert note({1: RuntimeError(MESSAGE)}) == [], "nobody knows which process it was"
    (noted,) = noted_failures(tmp_path / "logs")[""]
    assert noted.reason == (
        "worker 1 ended without a word (killed, out of memory, or crashed): SYSTEM_ERROR, it was killed"
    )
    assert (noted.worker, noted.transient) == (1, True), "another attempt may succeed"
    assert "Worker exit detail" in noted.traceback
    assert noted.log == str(tmp_path / "logs" / "group-3-worker-1.log")
    log = Path(noted.log).read_text()
    assert noted.reason in log
    assert "Worker exit detail" in log


def test_a_worker_that_introduced_itself_is_named_and_its_logs_are_fetched(
    tmp_path: Path, note: Callable[..., list[tuple[Any, ...]]]
) -> None:
    (tmp_path / "introductions").mkdir()
    (tmp_path / "introductions" / "worker-0.json").write_text(json.dumps(asdict(PROCESS)))
    fetched = note({0: RuntimeError(MESSAGE), 1: RuntimeError(MESSAGE)})
    assert fetched == [(PROCESS, tmp_path / "logs", "group-3-worker-0")]
    noted = noted_failures(tmp_path / "logs")
    assert noted["a7"][0].reason.startswith("worker 0 (pid 42 on 10.0.0.7) ended without a word")
    assert noted[""][0].reason.startswith("worker 1 ended without a word")
    assert not list((tmp_path / "introductions").iterdir()), "whoever comes next is not yet known"


TAKEN_AWAY = RayActorError(error_msg=MESSAGE, preempted=True)


@pytest.mark.parametrize(
    "error", [SequenceFailed("s"), NonFiniteLoss("n"), WorkerFailed("w"), Preempted("p"), TAKEN_AWAY]
)
def test_who_could_still_speak_has_noted_it_already_and_whose_machine_was_taken_away_did_not_fail(
    error: Exception, tmp_path: Path, note: Callable[..., list[tuple[Any, ...]]]
) -> None:
    assert note({0: error}) == []
    assert not (tmp_path / "logs").exists()
