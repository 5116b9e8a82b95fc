"""Tasks and streams: splits, hashes, prompts."""

from __future__ import annotations

from typing import Literal

import pytest

from streams import Example, Limits, Stream, Task, carve_dev, normalise_answer

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
    assert t.left_out("train") == 2
    assert t.left_out("test") == 0
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
