"""All that a state is to be given: scores on tasks, and behind them the results in benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.evaluation.columns import (
    column_events,
    column_name,
    is_complete,
    lacks_columns,
    missing_columns,
    note_columns,
)
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.probes import probe_results
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ScoreComputed
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.evaluation.abilities.probe_tasks import write_probe
from tests.orchestrator.states import make_states, planned


def test_a_score_is_noted_once_whoever_notes_it(tmp_path: Path) -> None:
    """As by experiments that share a sequence, or after a process that died among the scores of a state."""
    sequence = planned(tmp_path, methods=["ft"])[0]
    store = make_states(sequence, 0)
    folder = journal_folder(sequence.out, sequence.id)
    with ThreadPoolExecutor(1) as other, store.lock(f"scores-{sequence.id}", timeout=0):
        waiting = other.submit(note_columns, sequence, 0, store)
        # long enough for what does not wait
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        Journal(folder, "train").append(next(column_events(sequence, 0, store)))
    note_columns(sequence, 0, store)
    noted = [(e.tasks_seen, e.task_id) for e in Tail(folder).new_events() if isinstance(e, ScoreComputed)]
    assert noted == [(0, 0), (0, 1), (0, 2)]


def test_a_sequence_is_through_when_its_states_have_all_columns(
    tmp_path: Path, sequence_of: Callable[..., SequencePlan]
) -> None:
    """And one that was through without benchmarks goes on for these alone."""
    pytest.importorskip("lm_eval")
    plain = sequence_of(model="tiny-llama", stream={"first": 2})
    run_sequence(plain)
    store = Store(Path(plain.out))
    assert is_complete(plain, store)
    probes = {"tasks": ["films"], "include": str(write_probe(tmp_path / "own", "films"))}
    asked = sequence_of(model="tiny-llama", stream={"first": 2}, evaluation={"probes": probes})
    assert asked.id == plain.id and not is_complete(asked, store)
    assert [missing_columns(asked, tasks_seen, store) for tasks_seen in range(3)] == [[2]] * 3
    assert column_name(asked, 2) == "films" and column_name(asked, 1) == asked.tasks[1]
    before = read_view(asked.out, asked.id)
    assert lacks_columns(asked, before, 1) and not lacks_columns(plain, before, 1)
    view = run_sequence(asked)
    assert not lacks_columns(asked, read_view(asked.out, asked.id), 1)
    assert is_complete(asked, store) and view.status == "finished"
    names = [event.name for tasks_seen in range(3) for event in column_events(asked, tasks_seen, store)]
    assert names == ["score", "score", "probe"] * 3
    read = read_view(asked.out, asked.id)
    assert sorted(read.probes) == [(0, "films"), (1, "films"), (2, "films")]
    assert [row["after"] for row in probe_results(read)] == ["(before training)", *asked.tasks]
    steps = [task.checkpoint.reused for task in read.by_task.values() if task.checkpoint]
    assert steps == [False, False], "nothing was trained again under another name"
