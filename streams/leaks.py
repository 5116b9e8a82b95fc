"""What training may see of a test split, and tasks that are one task under two names: found by their texts, before training.

Two rows hold one text where their bare texts are equal (see `bare_text`), whatever their case and punctuation.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from streams.splits import SPLITS, Split
from streams.stream import Stream
from streams.task import Task
from streams.text import bare_text, normalise_answer

LeakKind = Literal["train-test-overlap", "dev-is-test", "same-task-twice"]

# A hundredth of the test texts can move a score by one point, which is what methods may differ by. (In the 15 tasks of the
# public benchmark, as far as their files were at hand, no test text is in train at all.)
MOST_OVERLAP = 0.01
# of a small test split a hundredth is less than a text: so many are a handful, unless they are half of it
HANDFUL = 3
# from this share of the smaller task's rows on, two tasks are one
SAME_TASK = 0.5
# splits whose texts are hashed once in a process, however often a stream of them is opened
MOST_KEPT = 200

_kept: dict[str, tuple[list[bytes], list[bytes]]] = {}


@dataclass(frozen=True)
class Leak:
    """One thing that was found: its kind, a line about it, and whether it is too much to be chance."""

    kind: LeakKind
    line: str
    is_refused: bool


def find_leaks(stream: Stream) -> list[Leak]:
    """What a stream leaks, task by task. Reads every split; of a sealed task all but test, with which nothing is compared.

    Corpora are not compared: as many hashes as they have documents would be more than memory that does not grow with them.
    """
    leaks = []
    contents = set()
    for task in stream.tasks:
        if task.objective == "text":
            continue
        # said of a task that comes again, it would be said as often
        if task.sealed or task.content_name in contents:
            continue
        contents.add(task.content_name)
        leaks += list(_leaks_of(stream, task))
    leaks += list(_same_tasks(stream))
    return leaks


def _leaks_of(stream: Stream, task: Task) -> Iterator[Leak]:
    where = f"stream {stream.name!r}, task {task.name!r}"
    test = _texts(task, "test")
    seen = set(_texts(task, "train"))
    dev: set[bytes] = set()
    if task.has_dev:
        dev = set(_texts(task, "dev"))
    if dev == set(test):
        yield Leak(
            "dev-is-test",
            f"{where}: its dev split is its test split ({len(test)} rows): what is tuned is tuned on test",
            True,
        )
    else:
        # what was held out of train was cut from the same rows
        seen |= dev
    num_seen = 0
    for text in test:
        num_seen += text in seen
    if num_seen:
        share = 100 * num_seen / len(test)
        line = f"{where}: {num_seen} of {len(test)} test texts ({share:.3g} %) are train texts too"
        yield Leak("train-test-overlap", line, is_too_much(num_seen, len(test)))


def is_too_much(num_seen: int, num_test: int) -> bool:
    """Whether so many of the test texts are more than chance leaves in a data set."""
    share = num_seen / num_test
    return share > MOST_OVERLAP and (num_seen > HANDFUL or share >= SAME_TASK)


def _same_tasks(stream: Stream) -> Iterator[Leak]:
    """Pairs of tasks with rows in common, which their stream did not cut from one task on purpose."""
    rows_of = [_all_rows(task) for task in stream.tasks]
    # through an index of the rows: to compare each task with each would take long for streams of hundreds
    tasks_with: dict[bytes, list[int]] = defaultdict(list)
    for index, rows in enumerate(rows_of):
        for row in rows:
            tasks_with[row].append(index)
    num_common: Counter[tuple[int, int]] = Counter()
    for indices in tasks_with.values():
        if len(indices) > 1:
            num_common.update(combinations(indices, 2))
    for (first, second), common in sorted(num_common.items()):
        one = stream.tasks[first]
        other = stream.tasks[second]
        # parts and repetitions of one task are read by one loader
        if one.load is other.load:
            continue
        smaller = min(len(rows_of[first]), len(rows_of[second]))
        if common > MOST_OVERLAP * smaller:
            share = 100 * common / smaller
            line = (
                f"stream {stream.name!r}, tasks {one.name!r} and {other.name!r}: {common} rows with one text and one answer are "
                f"in both, {share:.3g} % of the smaller"
            )
            yield Leak("same-task-twice", line, common >= SAME_TASK * smaller)


def _all_rows(task: Task) -> set[bytes]:
    """The rows of all splits that may be read, by text and answer."""
    rows: set[bytes] = set()
    if task.objective == "text":
        return rows
    for split in SPLITS:
        if (split == "test" and task.sealed) or (split == "dev" and not task.has_dev):
            continue
        rows |= set(_hashes(task, split)[1])
    return rows


def _texts(task: Task, split: Split) -> list[bytes]:
    """The hashes of a split's bare texts, in its order."""
    return _hashes(task, split)[0]


def _hashes(task: Task, split: Split) -> tuple[list[bytes], list[bytes]]:
    """The hash of each row's bare text, and for each that is the task's own also of that with its answer."""
    name = task.split_hash(split)
    kept = _kept.pop(name, None)
    if kept is None:
        texts = []
        rows = []
        for example in task.read(split):
            text = bare_text(example.text)
            texts.append(_hash(text))
            # a guest is another task's row, and stands in both on purpose
            if example.prompt is not None:
                continue
            rows.append(_hash(f"{normalise_answer(example.label)}\n{text}"))
        kept = (texts, rows)
    # put back at the end, so that what was asked for longest ago is let go first
    _kept[name] = kept
    while len(_kept) > MOST_KEPT:
        del _kept[next(iter(_kept))]
    return kept


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
