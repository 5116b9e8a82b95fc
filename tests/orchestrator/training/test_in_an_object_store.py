"""Whole sequences with their output in an object store: the numbers of a run on a disk, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import Step
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

ROOT = Path(__file__).parents[3]


def sequence_in(out: str) -> SequencePlan:
    (sequence,) = plan(small_config(out, methods=["ft+migu"], stream={"first": 3}))
    return sequence


def last_weights(sequence: SequencePlan) -> dict[str, torch.Tensor]:
    return dict(Store(folder_at(sequence.out)).load(sequence.keys[-1]).weights)


def assert_alike(one: SequencePlan, other: SequencePlan, views: tuple[View, View]) -> None:
    """Two runs gave the same scores and the same weights, bit for bit."""
    np.testing.assert_array_equal(views[0].matrix(), views[1].matrix())
    assert not np.isnan(views[0].matrix()).any()
    weights, others = last_weights(one), last_weights(other)
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name])


def test_a_run_gives_what_it_gives_on_a_disk_and_is_not_repeated(bucket: str, tmp_path: Path) -> None:
    here, there = sequence_in(str(tmp_path / "out")), sequence_in(f"{bucket}/runs")
    assert here.keys == there.keys
    assert_alike(here, there, (run_sequence(here), run_sequence(there)))
    events = list(Tail(journal_folder(there.out, there.id)).new_events())
    again: list[str] = []
    view = run_sequence(there, report=lambda event: again.append(event.name))
    assert view.status == "finished"
    assert set(again) == {"sequence_started", "sequence_finished"}
    assert len(list(Tail(journal_folder(there.out, there.id)).new_events())) == len(events) + len(again)


def start(sequence: SequencePlan) -> subprocess.Popen[bytes]:
    """A process that runs a sequence."""
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from orchestrator.planning.sequence_plan import SequencePlan\n"
        "from orchestrator.training.sequence import run_sequence\n"
        "run_sequence(SequencePlan.model_validate_json(sys.stdin.read()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment)
    assert process.stdin
    process.stdin.write(sequence.model_dump_json().encode())
    process.stdin.close()
    return process


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_no_task_is_trained_twice(bucket: str, tmp_path: Path) -> None:
    here, there = sequence_in(str(tmp_path / "out")), sequence_in(f"{bucket}/runs")
    processes = [start(there), start(there)]
    store = Store(folder_at(there.out))
    ends = time.monotonic() + 120
    while not store.has(there.keys[1]) and time.monotonic() < ends:
        time.sleep(0.05)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    assert processes[1].wait(timeout=120) == 0
    events = list(Tail(journal_folder(there.out, there.id)).new_events())
    times: dict[tuple[int, int], set[int]] = defaultdict(set)
    for event in events:
        # of the task amid which one was killed some steps may be told twice
        if isinstance(event, Step) and event.task_id != 1:
            times[event.task_id, event.step].add(event.time)
    # whoever finds a state notes its steps with their times: two times are two trainings
    assert len(times) == 6 and all(len(found) == 1 for found in times.values())
    assert [folder.name for folder in sorted((store.root / "checkpoints").iterdir())] == sorted(there.keys[1:])
    assert_alike(here, there, (run_sequence(here), run_sequence(there)))
