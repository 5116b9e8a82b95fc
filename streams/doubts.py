"""What makes a task's score say nothing, though nothing is wrong with the form of its data."""

from __future__ import annotations

from streams.stream import Stream
from streams.task import Task


def doubts(stream: Stream) -> list[str]:
    """A line for each task of one label, of one class in train, or with empty texts there. Reads train alone.

    Nothing is said of corpora.
    """
    lines = []
    contents = set()
    for task in stream.tasks:
        # a corpus asks nothing, and comparing all of its documents would take longer than the plan
        if task.objective == "text":
            continue
        # said of a task that comes again, it would be said as often
        if task.train_hash in contents:
            continue
        contents.add(task.train_hash)
        for doubt in _doubts_of(task):
            lines.append(f"stream {stream.name!r}, task {task.name!r}: {doubt}")
    return lines


def _doubts_of(task: Task) -> list[str]:
    lines = []
    train = task.read("train")
    answers = {example.label for example in train}
    if len(task.labels) == 1:
        lines.append(f"{task.labels[0]!r} is its only label: there is nothing to tell apart")
    elif len(answers) == 1:
        lines.append(f"all {len(train)} train rows have the label {train[0].label!r}: nothing is learnt but to say so")
    num_empty = 0
    for example in train:
        num_empty += not example.text.strip()
    if num_empty:
        lines.append(f"{num_empty} of {len(train)} train texts are empty: their answers can only be guessed")
    return lines
