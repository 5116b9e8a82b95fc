"""Records that nobody trained read as those of an experiment that has finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.bench.made_records import Size, long_sequence, make_experiment
from orchestrator.evaluation.columns import is_complete
from orchestrator.planning.experiment import open_experiment
from orchestrator.report.results import results
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import read_view


def test_nothing_is_missing_of_them(tmp_path: Path) -> None:
    """After t tasks each of them scores 80 less one for each task since; a task that is to come scores 10."""
    made = make_experiment(tmp_path, Size(sequences=2, tasks=3, steps=4))
    experiment = open_experiment("scale", str(tmp_path))
    assert [sequence.id for sequence in experiment.sequences] == ["ft-made-s0", "ft-made-s1"]
    result = results(experiment)
    for sequence, plan in zip(result["sequences"], made.sequences, strict=True):
        assert is_complete(plan, Store(tmp_path))
        assert sequence["status"] == "finished"
        assert sequence["steps"] == 12
        expected = [[10, 10, 10], [79, 10, 10], [78, 79, 10], [77, 78, 79]]
        np.testing.assert_array_equal(sequence["accuracy_matrix"], expected)
        assert sequence["aa"] == pytest.approx(78)
        assert [len(task.steps) for task in read_view(plan.out, plan.id).by_task.values()] == [4, 4, 4]


def test_a_long_one_has_one_task(tmp_path: Path) -> None:
    made = make_experiment(tmp_path, Size(sequences=1, tasks=2, steps=1))
    plan = long_sequence(tmp_path, made, 50)
    view = read_view(plan.out, plan.id)
    assert (view.status, len(view.tasks), len(view.by_task[0].steps)) == ("finished", 1, 50)
