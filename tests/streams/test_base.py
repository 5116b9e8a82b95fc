"""Tasks and streams: splits, hashes, prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import pytest

from streams import (
    SPLITS,
    Example,
    Limits,
    SealedSplit,
    Stream,
    Task,
    bare_text,
    carve_dev,
    half_of_labels,
    normalise_answer,
)

DEFAULT = Limits()
ROWS = [Example(f"text number {i}", "yes" if i % 2 else "no") for i in range(40)]


def task(
    rows: list[Example] = ROWS, name: str = "t", limits: Limits = DEFAULT, labels: tuple[str, ...] = ("yes", "no")
) -> Task:
    def load(split: Literal["train", "test"]) -> list[Example]:
        return rows if split == "train" else rows[:5]

    return Task(name, "Cat", "Well? ", labels, "here", load, limits)


def test_dev_is_carved_from_train_and_disjoint() -> None:
    t = task(limits=Limits(dev_fraction=0.25))
    train, dev = t.read("train"), t.read("dev")
    assert len(dev) == 10
    assert len(train) == 30
    assert sorted(e.text for e in (*train, *dev)) == sorted(e.text for e in ROWS)


def test_the_carve_depends_on_the_seed_and_nothing_else() -> None:
    first, again = carve_dev(ROWS, 0.2, seed=1), carve_dev(list(reversed(ROWS)), 0.2, seed=1)
    assert first == again
    assert carve_dev(ROWS, 0.2, seed=2)[1] != first[1]


def test_rows_with_one_text_stay_on_one_side() -> None:
    rows = [Example("Same  Text", "yes"), Example("same text", "no")] * 10 + ROWS[:10]
    for seed in range(20):
        train, dev = carve_dev(rows, 0.3, seed)
        same_in_train = [e for e in train if e.text.lower().split() == ["same", "text"]]
        same_in_dev = [e for e in dev if e.text.lower().split() == ["same", "text"]]
        assert (len(same_in_train), len(same_in_dev)) in ((20, 0), (0, 20))


def test_a_smaller_limit_takes_a_part_of_a_larger_one() -> None:
    few, more = task(limits=Limits(max_train=5)).read("train"), task(limits=Limits(max_train=9)).read("train")
    assert more[:5] == few


def test_rows_outside_the_label_set_are_left_out_and_counted() -> None:
    t = task([*ROWS, Example("odd one", "-"), Example("odd two", "-")])
    assert t.dropped_rows("train") == 2
    assert t.dropped_rows("test") == 0
    assert all(e.label in ("yes", "no") for e in (*t.read("train"), *t.read("dev")))


def test_the_test_split_is_not_loaded_by_reading_train() -> None:
    asked = []

    def load(split: Literal["train", "test"]) -> list[Example]:
        asked.append(split)
        return ROWS

    t = Task("t", "", "", ("yes", "no"), "here", load)
    t.read("train"), t.read("dev"), t.train_hash
    assert asked == ["train"]


def test_hashes_follow_content() -> None:
    base = task()
    assert base.train_hash == task().train_hash
    changed = [Example("another text", "yes"), *ROWS[1:]]
    others = [task(changed), task(name="u"), task(labels=("no", "yes")), task(limits=Limits(max_train=3))]
    assert len({base.train_hash, *(o.train_hash for o in others)}) == 5
    assert base.test_hash == task(limits=Limits(max_train=3)).test_hash


def test_each_split_has_a_hash() -> None:
    t = task()
    assert t.split_hash("train") == t.train_hash
    assert t.split_hash("test") == t.test_hash
    assert len({t.split_hash(split) for split in SPLITS}) == 3


def test_rows_are_numbered_as_in_the_raw_split() -> None:
    rows = [Example("odd", "-", row=99), *ROWS]
    t = task(rows, limits=Limits(dev_fraction=0.25))
    for split in SPLITS:
        assert len(t.read(split)) in (30, 10, 4)
        for example in t.read(split):
            assert rows[example.row - 1] == example
    assert {e.row for e in (*t.read("train"), *t.read("dev"))} == set(range(2, 42))


def test_the_row_number_is_no_part_of_the_example() -> None:
    assert Example("a", "b", 1) == Example("a", "b", 2)
    assert task([Example(e.text, e.label, 5) for e in ROWS]).train_hash == task().train_hash


def test_a_task_is_its_own_data_set_unless_it_says_otherwise() -> None:
    assert task().dataset == "t"
    assert dataclasses.replace(task(), dataset="yelp").dataset == "yelp"


class Loads:
    """A loader that writes down what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, split: Literal["train", "test"]) -> list[Example]:
        self.asked.append(split)
        return ROWS if split == "train" else ROWS[:5]

    def stream(self) -> Stream:
        return Stream("s", tuple(Task(name, "", "", ("yes", "no"), "here", self) for name in ("a", "b")))


WAYS_TO_TEST: list[Callable[[Task], object]] = [
    lambda t: t.read("test"),
    lambda t: t.test_hash,
    lambda t: t.split_hash("test"),
    lambda t: t.dropped_rows("test"),
]


@pytest.mark.parametrize("way", WAYS_TO_TEST)
def test_a_sealed_task_has_no_way_to_its_test_split(way: Callable[[Task], object]) -> None:
    loads = Loads()
    stream = loads.stream()
    for t in stream.sealed().tasks:
        with pytest.raises(SealedSplit, match=f"task '{t.name}': the test split is sealed while tuning"):
            way(t)
        assert (t.dropped_rows("train"), t.has_dev) == (0, True)
    assert "test" not in loads.asked
    way(stream.tasks[0])
    assert loads.asked[-1] == "test"


def test_reading_test_is_announced_once_and_before_it_happens() -> None:
    loads, seen = Loads(), []
    stream = loads.stream().watched(lambda t: seen.append((t.name, list(loads.asked))))
    first = stream.tasks[0]
    first.read("train"), first.train_hash, first.read("dev")
    assert seen == []
    first.read("test"), first.test_hash, first.dropped_rows("test")
    assert seen == [("a", ["train"])]
    assert loads.asked == ["train", "test"]
    stream.manifest()
    assert [name for name, _ in seen] == ["a", "b"]


def test_a_sealed_task_announces_nothing() -> None:
    seen: list[Task] = []
    (t, _) = Loads().stream().watched(seen.append).sealed().tasks
    with pytest.raises(SealedSplit):
        t.read("test")
    assert seen == []


def test_the_manifest_says_what_the_data_is() -> None:
    t = task([*ROWS, Example("odd", "-")])
    assert Stream("s", (t,)).manifest() == [
        {
            "task": "t",
            "dataset": "t",
            "source": "here",
            "labels": ["yes", "no"],
            "sizes": {"train": 36, "dev": 4, "test": 5},
            "dropped_rows": {"train": 1, "test": 0},
            "train_sha256": t.train_hash,
            "dev_sha256": t.split_hash("dev"),
            "test_sha256": t.test_hash,
        }
    ]
    assert Stream("s", (task(limits=Limits(dev_fraction=0)),)).manifest()[0]["dev_sha256"] is None


def test_the_manifest_of_a_sealed_stream_says_nothing_of_test() -> None:
    loads = Loads()
    (row, _) = loads.stream().sealed().manifest()
    (full, _) = loads.stream().manifest()
    assert row == {
        **{key: value for key, value in full.items() if key != "test_sha256"},
        "sizes": {"train": 36, "dev": 4},
        "dropped_rows": {"train": 0},
    }
    assert loads.asked.count("test") == 2, "only the full manifest of two tasks reads test"


def test_the_first_tasks_of_a_stream() -> None:
    stream = Loads().stream()
    assert (stream.first(1).name, stream.first(1).tasks) == ("s", stream.tasks[:1])
    assert stream.first(2).tasks == stream.tasks
    for count in (0, 3, -1):
        with pytest.raises(ValueError, match=f"the first {count} tasks of 2"):
            stream.first(count)


def test_halves_of_the_rows_share_no_text() -> None:
    def load(split: Literal["train", "test"]) -> list[Example]:
        # test holds what train holds, in other spelling, and rows of its own
        other = [Example(f"TEXT,  number {i}!", "yes") for i in range(20)]
        return (
            ROWS
            if split == "train"
            else [*other, Example("another", "-"), *[Example(f"t {i}", "no") for i in range(20)]]
        )

    halves = [Task("t", "", "", ("yes", "no"), "here", load, Limits(row_half=half)) for half in (0, 1)]
    texts = [{bare_text(e.text) for s in SPLITS for e in t.read(s)} for t in halves]
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == {f"text number {i}" for i in range(40)} | {f"t {i}" for i in range(20)}
    assert min(map(len, texts)) >= 20
    assert sorted(t.dropped_rows("test") for t in halves) == [0, 1]
    for t in halves:
        assert all(e.row == int(e.text.split()[2]) + 1 for e in (*t.read("train"), *t.read("dev")))
    reseeded = dataclasses.replace(halves[0], limits=Limits(row_half=0, seed=5))
    assert {bare_text(e.text) for s in SPLITS for e in reseeded.read(s)} == texts[0]


def test_another_half_is_refused() -> None:
    with pytest.raises(ValueError, match="row_half is 2: one of 0, 1, None"):
        Limits(row_half=2)


def test_texts_can_be_skipped() -> None:
    t = task(limits=Limits(dev_fraction=0, skip_texts=frozenset({"text number 3", "text number 7"})))
    assert {e.row for e in t.read("train")} == set(range(1, 41)) - {4, 8}
    assert {e.row for e in t.read("test")} == {1, 2, 3, 5}
    assert t.dropped_rows("train") == 0


@pytest.mark.parametrize(("count", "sizes"), [(4, (2, 2)), (5, (2, 3)), (10, (5, 5))])
def test_halves_of_the_labels_are_disjoint(count: int, sizes: tuple[int, int]) -> None:
    labels = tuple(f"label {i}" for i in range(count))
    whole = task([Example(f"row {i}", labels[i % count]) for i in range(100)], labels=labels)
    halves = [half_of_labels(whole, half) for half in (0, 1)]
    assert tuple(len(t.labels) for t in halves) == sizes
    assert sorted(halves[0].labels + halves[1].labels) == sorted(labels)
    for t in halves:
        assert t.name == "t"
        assert t.labels == tuple(label for label in labels if label in t.labels)
        assert {e.label for e in t.read("train")} == set(t.labels)
    assert sum(t.dropped_rows("train") for t in halves) == 100


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


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("Really,  GOOD!\n", "really good"),
        ("it’s “good” — yes", "its good yes"),
        ("café 5 €", "café 5 €"),
        ("!!!", "!!!"),
        (":)", ":)"),
        ("", ""),
    ],
)
def test_bare_texts(given: str, bare: str) -> None:
    assert bare_text(given) == bare


def test_the_published_prompt() -> None:
    prompt = str(task().prompt("A sentence."))
    assert prompt == "Task:Cat\nDataset:t\nWell? Option: yes, no \nA sentence.\nAnswer:"


def test_empty_splits_and_label_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="task 't': the train split is empty"):
        task([]).read("train")
    with pytest.raises(ValueError, match="label set is empty"):
        task(labels=())
    with pytest.raises(ValueError, match="names a label twice"):
        task(labels=("a", "a"))


def test_labels_grow_with_the_stream() -> None:
    stream = Stream("s", (task(name="a"), task(name="b", labels=("maybe", "no", "never"))))
    assert stream.labels_until(1) == ("yes", "no")
    assert stream.labels_until(2) == ("yes", "no", "maybe", "never")
    with pytest.raises(ValueError, match="names a task twice"):
        Stream("s", (task(), task()))


@pytest.mark.parametrize(
    ("given", "normal"),
    [("Very  Negative.", "very negative"), ("Science & Mathematics", "science mathematics"), ("TRUE", "true")],
)
def test_answers_are_normalised(given: str, normal: str) -> None:
    assert normalise_answer(given) == normal
