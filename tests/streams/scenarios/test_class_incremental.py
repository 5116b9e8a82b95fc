"""Classes that come in turn."""

from __future__ import annotations

import pytest

from streams.scenarios.class_incremental import ClassIncremental
from tests.streams.scenarios.small import rows_of, stream_of, task_of, texts

TASK = task_of("a b c d e")


def test_each_task_brings_its_labels_and_all_of_their_rows() -> None:
    order = ("e", "a", "d", "b", "c")
    tasks = ClassIncremental(labels_per_task=2, order=order).apply(stream_of(TASK)).tasks
    # the last one takes what remains; within a task the labels are listed as in the whole
    assert [task.labels for task in tasks] == [("a", "e"), ("b", "c", "d")]
    assert [task.name for task in tasks] == ["t-1", "t-2"]
    assert texts(tasks[0]) == sorted(row.text for row in rows_of("ae", 3, "t"))
    assert sorted(texts(tasks[0]) + texts(tasks[1])) == texts(TASK)
    assert sorted(texts(tasks[0], "test") + texts(tasks[1], "test")) == texts(TASK, "test")


def test_every_task_of_a_stream_is_cut_or_the_one_that_is_named() -> None:
    stream = stream_of(TASK, task_of("x y z w", name="u"))
    listed = ClassIncremental(labels_per_task=2).apply(stream)
    assert listed.task_names == ("t-1", "t-2", "u-1", "u-2")
    assert listed.tasks[2].labels == ("x", "y")
    assert ClassIncremental(labels_per_task=2, task="u").apply(stream).task_names == ("u-1", "u-2")


def test_a_seed_draws_the_order() -> None:
    def first_labels(seed: int) -> tuple[str, ...]:
        return ClassIncremental(labels_per_task=2, seed=seed).apply(stream_of(TASK)).tasks[0].labels

    # written down, so that no change of ours goes unseen
    assert [first_labels(seed) for seed in (0, 1, 2)] == [("d", "e"), ("a", "c"), ("b", "e")]
    assert len({first_labels(seed) for seed in range(40)}) == 10, "all pairs of five labels"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"labels_per_task": 6}, "labels_per_task: 6, but task 't' has 5 labels"),
        ({"labels_per_task": 2, "order": ("a", "b", "c", "d", "f")}, "order: unknown label 'f'"),
        ({"labels_per_task": 2, "order": ("a", "b", "c", "d")}, "order: 'e' is there 0 times; each label comes once"),
        ({"labels_per_task": 2, "order": ("a", "b", "c", "d", "e", "e")}, "order: 'e' is there 2 times"),
        ({"labels_per_task": 2, "task": "u"}, "unknown task 'u'"),
        ({"labels_per_task": 2, "seed": 1, "order": ("a",)}, "give one of seed, which draws an order, and order"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, object], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ClassIncremental.model_validate(settings).apply(stream_of(TASK))
    with pytest.raises(ValueError, match="`order` is of one task: give `task`, one of t, u"):
        ClassIncremental(labels_per_task=2, order=TASK.labels).apply(stream_of(TASK, task_of(name="u")))
