"""How many workers a group takes, and how those leave that another number of them follows."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from ray.train.v2._internal.execution.controller.state import ResizingState, RunningState
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision

from orchestrator.cluster import elastic
from orchestrator.cluster.elastic import LeaveBeforeResize, largest_size
from orchestrator.cluster.leaving import is_asked_to_leave, make_leave_file, take_back

RESIZING = ResizingState(scaling_decision=ResizeDecision(num_workers=2, resources_per_worker={"CPU": 1}))


def test_the_largest_number_that_divides_the_batch() -> None:
    assert [largest_size((1, 2, 4), possible) for possible in range(6)] == [0, 1, 2, 2, 4, 4]
    assert largest_size((4,), 3) == 0


def test_workers_are_given_time_to_leave_before_another_number_of_them(tmp_path: Path) -> None:
    file = make_leave_file(str(tmp_path), "group")
    callback = LeaveBeforeResize(file)
    asked = []

    def leave() -> None:
        while not is_asked_to_leave(file):
            time.sleep(0.01)
        asked.append(True)
        take_back(file)

    workers = threading.Thread(target=leave)
    workers.start()
    callback.after_controller_state_update(RESIZING, RunningState())
    assert asked == [], "it has just come up"
    began = time.monotonic()
    callback.after_controller_state_update(RunningState(), RESIZING)
    assert time.monotonic() - began < elastic.LEAVE_SECONDS / 2
    workers.join()
    assert asked == [True]


def test_workers_that_do_not_leave_in_time_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic, "LEAVE_SECONDS", 0.1)
    file = make_leave_file(str(tmp_path), "group")
    LeaveBeforeResize(file).after_controller_state_update(RunningState(), RESIZING)
    assert not is_asked_to_leave(file), "the next ones would leave at once"
