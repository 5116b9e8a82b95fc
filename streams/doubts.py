"""What makes a task's score say nothing, though nothing is wrong with the form of its data."""

from __future__ import annotations

from streams.stream import Stream
from streams.task import Task

# a few texts come twice in most real data sets; from this share on the score is mainly one of memory
MANY = 0.5


def doubts(stream: Stream) -> list[str]:
    """A line for each task of one label, of one class in train, or whose test texts are in train. Reads every split.

    Nothing is said of corpora. The test split of a sealed task is not read, and nothing is said of it.
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
    if not task.sealed:
        seen = {example.text for example in train}
        # what was held out of train was cut from the same rows
        if task.has_dev:
            seen |= {example.text for example in task.read("dev")}
        test = task.read("test")
        num_seen = sum(example.text in seen for example in test)
        if num_seen >= MANY * len(test):
            lines.append(f"{num_seen} of {len(test)} test texts are train texts too: its score is mainly one of memory")
    return lines
