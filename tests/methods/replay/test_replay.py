"""Replay: how many old examples come back, which, and that new ones are all there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from methods import Context
from methods.replay.memory import draw
from methods.replay.replay import Replay, ReplaySettings, deal, weights
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence

TASKS = [[{"source": [task, i]} for i in range(size)] for task, size in enumerate((40, 20, 60, 50))]


def replayed(task_id: int, **settings: Any) -> list[tuple[int, int]]:
    """(task, number) of the old examples that are added, after checking that the new ones are all there, first."""
    replay = Replay(ReplaySettings(**settings), Context(3))
    found = replay.training_set(task_id, TASKS[task_id], lambda i: TASKS[i])
    assert list(found[: len(TASKS[task_id])]) == TASKS[task_id]
    return [(f["source"][0], f["source"][1]) for f in found[len(TASKS[task_id]) :]]


def test_all_that_is_kept_comes_back_with_every_later_task() -> None:
    assert replayed(0, fraction=0.1) == []
    second, fourth = replayed(1, fraction=0.1), replayed(3, fraction=0.1)
    assert Counter(task for task, _ in fourth) == {0: 4, 1: 2, 2: 6}
    assert len(set(fourth)) == 12, "none twice"
    assert {e for e in fourth if e[0] == 0} == set(second), "what is kept of a task never changes"
    assert replayed(3, fraction=0.1) == fourth


def test_shares_by_hand() -> None:
    # t = 3: ages 3, 2, 1
    assert weights("uniform", 3, 1.0, 1) == pytest.approx([1 / 3] * 3)
    assert weights("power", 3, 1.0, 1) == pytest.approx([3 / 13, 4 / 13, 6 / 13])  # 1/4, 1/3, 1/2 over 13/12
    e = [math.exp(-2 * age) for age in (3, 2, 1)]
    assert weights("exponential", 3, 2.0, 1) == pytest.approx([x / sum(e) for x in e])
    assert weights("recent", 3, 1.0, 2) == pytest.approx([0, 0.5, 0.5])
    assert deal(10, [3 / 13, 4 / 13, 6 / 13]) == [2, 3, 5]  # 2.31, 3.08, 4.62
    assert deal(5, [0.5, 0.5]) == [3, 2]


@pytest.mark.parametrize(
    ("allocation", "counts"), [("uniform", {0: 4, 1: 3, 2: 3}), ("power", {0: 2, 1: 3, 2: 5}), ("recent", {2: 10})]
)
def test_the_others_deal_out_a_share_of_the_new_examples(allocation: str, counts: dict[int, int]) -> None:
    found = replayed(3, fraction=0.2, allocation=allocation)  # 0.2 x 50
    assert Counter(task for task, _ in found) == counts


def test_a_reservoir_is_drawn_from_all_that_is_kept() -> None:
    kept = set(replayed(3, fraction=0.2))
    found = replayed(3, fraction=0.2, allocation="reservoir")
    assert len(found) == 10
    assert set(found) <= kept


def test_few_examples_come_in_rounds() -> None:
    drawn = Counter(e["source"][1] for e in draw(TASKS[1][:3], 7, 0))
    assert sorted(drawn.values()) == [2, 2, 3]


def test_steps_count_the_old_examples_and_the_first_task_is_shared(sequence_of: Callable[..., SequencePlan]) -> None:
    plugin = {"name": "replay", "fraction": 0.25}
    stream = {"first": 3, "max_train": 24}
    sequence = sequence_of(methods=[{"tuning": "full", "plugins": [plugin]}], stream=stream)
    plain = sequence_of(stream=stream)
    assert sequence.keys[1] == plain.keys[1]
    assert sequence.keys[2] != plain.keys[2]
    view: View = run_sequence(sequence)
    # batches of 8 from 24, 24 + 6 and 24 + 12 examples
    assert [len(view.by_task[t].steps) for t in range(3)] == [3, 4, 5]
    assert [view.by_task[t].total_steps for t in range(3)] == [3, 4, 5]
