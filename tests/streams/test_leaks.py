"""What is in train and in test, and tasks that are one under two names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streams import Example, LeakKind, Limits, RawSplit, Stream, Task, find_leaks, named_stream
from streams.leaks import is_too_much


def rows(topic: str, first: int, count: int) -> list[Example]:
    """Rows that another topic has not, numbered, with answers in turn."""
    return [Example(f"{topic} text {i}", "yes" if i % 2 else "no") for i in range(first, first + count)]


def task(name: str, train: list[Example], test: list[Example], dev: float = 0) -> Task:
    def load(split: RawSplit) -> list[Example]:
        return train if split == "train" else test

    return Task(name, "", "", ("yes", "no"), "here", load, Limits(dev_fraction=dev))


def found(*tasks: Task) -> list[tuple[LeakKind, bool]]:
    return [(leak.kind, leak.is_refused) for leak in find_leaks(Stream("s", tasks))]


@pytest.mark.parametrize(
    ("num_seen", "num_test", "is_refused"),
    [
        # a hundredth of a large test split, and what is above it
        (76, 7600, False),
        (77, 7600, True),
        (4, 300, True),
        # a handful of a small one, unless it is half of all
        (3, 56, False),
        (4, 56, True),
        (1, 3, False),
        (2, 4, True),
        (1, 1, True),
    ],
)
def test_more_than_chance_leaves_is_refused(num_seen: int, num_test: int, is_refused: bool) -> None:
    assert is_too_much(num_seen, num_test) is is_refused
    train = rows("a", 0, 8000)
    test = rows("a", 8000 - num_seen, num_test)
    assert found(task("t", train, test)) == [("train-test-overlap", is_refused)]


def test_a_line_says_how_many() -> None:
    train = rows("a", 0, 40)
    # case, punctuation and blanks make no other text
    spelt_otherwise = [Example(f"A  TEXT, {i}!", "no") for i in range(6)]
    (leak,) = find_leaks(Stream("s", (task("t", train, spelt_otherwise + rows("b", 0, 34)),)))
    assert leak.line == "stream 's', task 't': 6 of 40 test texts (15 %) are train texts too"
    assert found(task("t", train, rows("b", 0, 34))) == []
    # what is in test twice counts twice: it is scored twice
    (leak,) = find_leaks(Stream("s", (task("t", train, 2 * rows("a", 0, 3) + rows("b", 0, 4)),)))
    assert "6 of 10 test texts (60 %)" in leak.line


def test_what_was_held_out_of_train_is_train_too() -> None:
    train = rows("a", 0, 40)
    held_out = task("t", train, rows("b", 0, 9), dev=0.5)
    dev = list(held_out.read("dev"))
    assert len(dev) == 20
    (leak,) = find_leaks(Stream("s", (task("t", train, dev[:10] + rows("b", 0, 10), dev=0.5),)))
    assert "10 of 20 test texts (50 %)" in leak.line


def test_a_dev_split_that_is_the_test_split_is_said_as_such() -> None:
    train = rows("a", 0, 40)
    dev = list(task("t", train, [], dev=0.1).read("dev"))
    # spelt otherwise and in another order, it is the same data
    test = [Example(example.text.upper(), example.label) for example in reversed(dev)]
    (leak,) = find_leaks(Stream("s", (task("t", train, test, dev=0.1),)))
    assert (leak.kind, leak.is_refused) == ("dev-is-test", True)
    assert leak.line == (
        "stream 's', task 't': its dev split is its test split (4 rows): what is tuned is tuned on test"
    )


def test_one_task_under_two_names() -> None:
    train, test = rows("a", 0, 60), rows("a", 60, 40)
    # one row of ten is another one, and no text is spelt as it was
    copied = [Example(row.text.title(), row.label) for row in train[:50]] + rows("b", 0, 10)
    stream = Stream(
        "s", (task("t", train, test), task("u", rows("c", 0, 60), rows("c", 60, 9)), task("v", copied, test))
    )
    (leak,) = find_leaks(stream)
    assert (leak.kind, leak.is_refused) == ("same-task-twice", True)
    assert leak.line == (
        "stream 's', tasks 't' and 'v': 90 rows with one text and one answer are in both, 90 % of the smaller"
    )


@pytest.mark.parametrize(("num_common", "expected"), [(1, []), (2, [False]), (49, [False]), (50, [True])])
def test_how_much_two_tasks_have_in_common(num_common: int, expected: list[bool]) -> None:
    one = task("t", rows("a", 0, 150), rows("a", 150, 50))
    other = task("u", rows("a", 0, num_common) + rows("b", 0, 90 - num_common), rows("b", 100, 10))
    assert found(one, other) == [("same-task-twice", is_refused) for is_refused in expected]


def test_other_questions_about_one_text_and_parts_of_one_task_are_no_repetition() -> None:
    train, test = rows("a", 0, 60), rows("a", 60, 40)
    turned = {"yes": "no", "no": "yes"}
    asked_otherwise = [Example(row.text, turned[row.label]) for row in train]
    turned_test = [Example(row.text, turned[row.label]) for row in test]
    assert found(task("t", train, test), task("u", asked_otherwise, turned_test)) == []
    one = task("t", train, test)
    assert found(one, replace(one, name="again")) == []


def test_a_task_that_comes_again_is_said_once_and_guests_are_no_repetition() -> None:
    train, test = rows("a", 0, 60), rows("a", 50, 40)
    one = task("t", train, test)
    assert found(one, one.again("t@2")) == [("train-test-overlap", True)]
    guest_task = task("g", rows("g", 0, 60), rows("g", 60, 9))
    guests = [replace(row, prompt=guest_task.prompt(row.text)) for row in guest_task.read("train")]
    host = task("h", rows("h", 0, 60), rows("h", 60, 9)).part("h", guests=lambda own: guests)
    assert len(host.read("train")) == 120
    assert found(host, guest_task) == []
    # but what a guest brings of the host's own test is seen in training
    telling = [replace(row, prompt=guest_task.prompt(row.text)) for row in rows("h", 60, 9)]
    assert found(task("h", rows("h", 0, 60), rows("h", 60, 9)).part("h", guests=lambda own: telling)) == [
        ("train-test-overlap", True)
    ]


def test_a_sealed_test_split_is_not_read() -> None:
    train = rows("a", 0, 40)
    leaking = Stream("s", (task("t", train, train), task("u", train, train)))
    assert [leak.kind for leak in find_leaks(leaking)] == [
        "train-test-overlap",
        "train-test-overlap",
        "same-task-twice",
    ]
    (leak,) = find_leaks(leaking.sealed())
    assert "40 rows" in leak.line


def test_the_streams_of_the_catalogue_leak_nothing() -> None:
    for name in ("embedded", "embedded-tuning"):
        assert find_leaks(named_stream(name)) == []


def test_real_text_leaks_nothing(benchmark_folder: Path) -> None:
    """Six of the fifteen tasks, which are read in a second; the others are no other case."""
    stream = named_stream("order4", Limits(), benchmark_folder)
    few = tuple(task for task in stream.tasks if task.dataset in ("cb", "copa", "wic", "rte", "sst2", "qqp"))
    assert len(few) == 6
    assert find_leaks(Stream("few", few)) == []
