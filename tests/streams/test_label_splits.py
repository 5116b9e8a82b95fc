"""Tasks cut by their labels."""

from __future__ import annotations

from collections import Counter

import pytest

from streams import Example, Task, half_of_labels, tasks_of_labels
from tests.streams.examples import task

LABELS = tuple(f"label {i}" for i in range(7))


@pytest.mark.parametrize(("count", "sizes"), [(4, (2, 2)), (5, (2, 3)), (10, (5, 5))])
def test_halves_of_the_labels_are_disjoint(count: int, sizes: tuple[int, int]) -> None:
    labels = tuple(f"label {i}" for i in range(count))
    whole = task([Example(f"row {i}", labels[i % count]) for i in range(100)], labels=labels)
    halves = [half_of_labels(whole, half) for half in (0, 1)]
    assert tuple(len(t.labels) for t in halves) == sizes
    assert sorted(halves[0].labels + halves[1].labels) == sorted(labels)
    for t in halves:
        assert t.name == t.shown_name == "t"
        assert t.labels == tuple(label for label in labels if label in t.labels)
        assert {e.label for e in t.read("train")} == set(t.labels)
    # each leaves the rows of the other's labels, and drops none that nobody has
    assert [t.dropped_rows("train") for t in halves] == [0, 0]


def test_the_choice_of_labels_is_a_function_of_their_set_and_the_seed() -> None:
    labels = tuple(f"label {i}" for i in range(10))
    chosen = [set(half_of_labels(task(labels=labels), 0, seed).labels) for seed in range(4)]
    again = [set(half_of_labels(task(labels=labels[::-1], name="u"), 0, seed).labels) for seed in range(4)]
    assert chosen == again
    assert len({frozenset(labels) for labels in chosen}) > 1


def test_labels_too_few_for_halves_are_refused() -> None:
    with pytest.raises(ValueError, match="task 't' has 3 labels: a half would be a task of one label"):
        half_of_labels(task(labels=("a", "b", "c")), 0)
    with pytest.raises(ValueError, match="half 2 of its labels"):
        half_of_labels(task(labels=("a", "b", "c", "d")), 2)


def seven_labels() -> Task:
    return task([Example(f"row {i}", LABELS[i % 7]) for i in range(140)], labels=LABELS)


def test_the_labels_come_in_turn_each_in_one_task() -> None:
    parts = tasks_of_labels(seven_labels(), 3)
    # the seventh has no task of its own
    assert [part.labels for part in parts] == [LABELS[:3], LABELS[3:]]
    assert [part.name for part in parts] == ["t-1", "t-2"]
    counts = [Counter(e.label for split in ("train", "dev") for e in part.read(split)) for part in parts]  # type: ignore[arg-type]
    assert counts == [dict.fromkeys(LABELS[:3], 20), dict.fromkeys(LABELS[3:], 20)]
    assert [part.dropped_rows("train") for part in parts] == [0, 0]
    assert [part.dataset for part in parts] == ["t", "t"]
    # a name that counts the tasks would tell a model which of them it reads
    assert str(parts[1].prompt("A.")).startswith(
        "Task:Cat\nDataset:t\nWell? Option: label 3, label 4, label 5, label 6 "
    )


def test_a_seed_draws_the_order_of_the_classes() -> None:
    whole = seven_labels()
    orders = []
    for seed in range(20):
        parts = tasks_of_labels(whole, 2, seed)
        assert [len(part.labels) for part in parts] == [2, 2, 3]
        assert sorted(label for part in parts for label in part.labels) == sorted(LABELS)
        for part in parts:
            assert list(part.labels) == [label for label in LABELS if label in part.labels]
        orders.append(tuple(part.labels for part in parts))
    assert tuple(part.labels for part in tasks_of_labels(whole, 2, 0)) == orders[0]
    assert len(set(orders)) > 15
    # all labels come first now and then
    assert {label for order in orders for label in order[0]} == set(LABELS)


def test_too_few_labels_for_one_task_are_refused() -> None:
    with pytest.raises(ValueError, match="labels_per_task: 8, but task 't' has 7 labels"):
        tasks_of_labels(seven_labels(), 8)
    assert [part.labels for part in tasks_of_labels(seven_labels(), 7)] == [LABELS]
