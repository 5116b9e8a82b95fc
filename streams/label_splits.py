"""A task cut by its labels: into halves to tune on one and evaluate the other, and into tasks that bring labels in turn.

Which label goes where depends on the set of labels and a seed alone, so that the parts are the same whatever order the
labels are listed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from streams.task import Task


def half_of_labels(task: Task, half: int, seed: int = 0) -> Task:
    """The task with one half (0 or 1) of its labels. The choice depends on the set of labels and the seed alone."""
    if half not in (0, 1):
        raise ValueError(f"task {task.name!r}: half {half!r} of its labels is asked for: one of 0, 1")
    if len(task.labels) < 4:
        raise ValueError(
            f"task {task.name!r} has {len(task.labels)} labels: a half would be a task of one label, nothing to learn"
        )
    ranked = _in_order_of(task.labels, str(seed))
    middle = len(ranked) // 2
    chosen = ranked[:middle]
    if half == 1:
        chosen = ranked[middle:]
    return _with_labels(task, chosen)


def tasks_of_labels(
    task: Task, labels_per_task: int, seed: int | None = None, order: Sequence[str] | None = None
) -> list[Task]:
    """The task as a sequence of tasks of `labels_per_task` labels each; the last one takes those that remain too.

    The labels come in the order in which the task lists them, in one that the seed draws, or in `order`: the
    class-incremental scenario, whose order of classes arXiv 2403.09066 varies from seed to seed. The tasks are named `<task>-1`,
    `<task>-2` and so on; prompts show the name of the whole. Raises ValueError where there are too few labels.
    """
    if len(task.labels) < labels_per_task:
        raise ValueError(f"labels_per_task: {labels_per_task}, but task {task.name!r} has {len(task.labels)} labels")
    ordered = list(order or task.labels)
    if seed is not None:
        # not the ranks of the halves: within a half, those would put the labels in an order that the choice has biased
        ordered = _in_order_of(task.labels, f"order {seed}")
    num_tasks = len(ordered) // labels_per_task
    tasks = []
    for task_index in range(num_tasks):
        start = task_index * labels_per_task
        end = start + labels_per_task
        # of what remains no task is made: it could have one label, and nothing to learn
        if task_index == num_tasks - 1:
            end = len(ordered)
        part = _with_labels(task, ordered[start:end])
        name = f"{task.name}-{task_index + 1}"
        tasks.append(replace(part, name=name, shown_name=task.shown_name, first_name=""))
    return tasks


def _in_order_of(labels: tuple[str, ...], salt: str) -> list[str]:
    def rank(label: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{salt}\n{label}".encode()).digest(), label

    return sorted(labels, key=rank)


def _with_labels(task: Task, chosen: list[str]) -> Task:
    """The task with some of its labels, in its own order: the order of the labels is part of the prompt."""
    kept = []
    others = []
    for label in task.labels:
        if label in chosen:
            kept.append(label)
        else:
            others.append(label)
    return replace(task, labels=tuple(kept), other_labels=task.other_labels.union(others))
