"""How workers learn that they are to leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster import leaving
from orchestrator.cluster.leaving import Leaving, ask_to_leave, is_asked_to_leave, make_leave_file


def test_a_file_asks_once_there_is_something_in_it(tmp_path: Path) -> None:
    file = make_leave_file(str(tmp_path), "r")
    assert not is_asked_to_leave(file)
    ask_to_leave(file)
    assert is_asked_to_leave(file)
    file.unlink()
    assert not is_asked_to_leave(file), "the run is over"
    ask_to_leave(tmp_path / "no folder" / "r.leave")


def test_the_answer_stays_and_the_storage_is_asked_seldom(tmp_path: Path) -> None:
    file = make_leave_file(str(tmp_path), "r")
    ask_to_leave(file)
    is_to_leave = Leaving(file)
    assert is_to_leave()
    file.unlink()
    is_to_leave.looked = -leaving.LOOK_SECONDS
    assert is_to_leave()
    later = Leaving(file)
    later.looked = float("inf")
    ask_to_leave(make_leave_file(str(tmp_path), "r"))
    assert not later(), "it has just looked"


def test_who_has_lost_a_lock_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "has_lost_a_lock", lambda: True)
    assert Leaving(make_leave_file(str(tmp_path), "r"))()
