"""Tasks: splits, hashes, labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import pytest

from streams import (
    SPLITS,
    Example,
    Limits,
    Prompt,
    SealedSplit,
    Task,
    find_prompt,
)
from tests.streams.examples import ROWS, Loads, task


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


def test_a_task_is_its_own_data_set_unless_it_says_otherwise() -> None:
    assert task().dataset == "t"
    assert dataclasses.replace(task(), dataset="yelp").dataset == "yelp"


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


def test_empty_splits_and_double_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="task 't': the train split is empty"):
        task([]).read("train")
    with pytest.raises(ValueError, match="names a label twice"):
        task(labels=("a", "a"))


def test_without_a_label_set_every_row_is_used() -> None:
    t = task([*ROWS, Example("odd one", "any words"), Example("odd two", "-")], labels=())
    assert t.dropped_rows("train") == 0
    assert {e.label for e in (*t.read("train"), *t.read("dev"))} == {"yes", "no", "any words", "-"}
    assert str(t.prompt("Text.")) == "Task:Cat\nDataset:t\nWell? Text.\nAnswer:"
    assert t.train_hash != task(labels=("yes", "no")).train_hash


def test_a_prompt_of_its_own_is_part_of_the_content() -> None:
    published = task()
    assert dataclasses.replace(published, template=find_prompt("benchmark")).train_hash == published.train_hash
    templates = [find_prompt("plain"), find_prompt("instruction"), find_prompt("{text} {options}")]
    hashes = {dataclasses.replace(published, template=template).train_hash for template in templates}
    assert len(hashes | {published.train_hash}) == 4


def test_the_scorer_is_no_part_of_the_content() -> None:
    assert dataclasses.replace(task(), scorer="other").train_hash == task().train_hash


def test_a_name_that_is_shown_instead_is_part_of_the_content() -> None:
    shown = dataclasses.replace(task(name="t-1"), shown_name="t")
    assert str(shown.prompt("A.")) == str(task().prompt("A."))
    assert len({shown.train_hash, task().train_hash, task(name="t-1").train_hash}) == 3


def test_rows_left_to_other_tasks_are_not_counted_as_dropped() -> None:
    rows = [*ROWS, Example("odd", "maybe"), Example("bad", "-")]
    t = dataclasses.replace(task(rows), other_labels=frozenset({"maybe"}))
    assert t.dropped_rows("train") == 1
    assert len(t.read("train")) + len(t.read("dev")) == 40


def test_a_split_whose_labels_are_all_unknown_says_so() -> None:
    rows = [Example("a", "Yes"), Example("b", "No"), Example("c", "Yes")]
    with pytest.raises(ValueError) as caught:
        task(rows).read("train")
    assert str(caught.value) == (
        "task 't': the train split is empty: all of its 3 rows have a label outside the label set, such as 'Yes' in row 1; "
        "the label set is 'yes', 'no' (here)"
    )
    with pytest.raises(ValueError, match="the test split is empty: all of its 3 rows"):
        task(rows).read("test")
    # there are rows of the label set, and none was held out
    with pytest.raises(ValueError, match=r"the dev split is empty \(here\)"):
        task([*ROWS, *rows], limits=Limits(dev_fraction=0)).read("dev")


@pytest.mark.parametrize("example", [Example("half \ud83d of one", "yes"), Example("text", "yes \udc00")])
def test_half_of_a_character_is_refused_with_its_row(example: Example) -> None:
    with pytest.raises(ValueError, match=r"task 't': row 41 holds half of a character .*\\ud") as caught:
        task([*ROWS, example]).read("train")
    # what is said can be printed
    assert str(caught.value).isascii()
    whole = Example("whole \U0001f642 مرحبا 你好", "yes")
    assert whole in task([*ROWS, whole]).read("train")


def with_labels(*labels: str) -> Callable[[str, Sequence[Example]], Sequence[Example]]:
    return lambda split, examples: [example for example in examples if example.label in labels]


def test_parts_read_once_and_have_each_row_in_the_split_of_the_whole() -> None:
    loads = Loads()
    whole = Task("t", "", "", ("yes", "no"), "here", loads, Limits(dev_fraction=0.25))
    yes = whole.part("t-1", with_labels("yes"), labels=("yes",))
    no = whole.part("t-2", with_labels("no"), labels=("no",))
    for split in SPLITS:
        assert sorted(e.text for part in (yes, no) for e in part.read(split)) == sorted(
            e.text for e in whole.read(split)
        )
        assert {e.label for e in yes.read(split)} == {"yes"}
    assert sorted(loads.asked) == ["test", "train"]
    # rows of the other part are none that nobody has, whichever is read first
    assert [part.dropped_rows("train") for part in (yes, no, whole)] == [0, 0, 0]
    assert len({part.train_hash for part in (yes, no, whole)}) == 3


def test_a_part_of_a_part_has_what_both_choose() -> None:
    first = task().part("u", with_labels("yes"))
    second = first.part("v", lambda split, examples: examples[:9])
    assert second.read("train") == first.read("train")[:9]
    # the caps come last
    capped = task(limits=Limits(max_train=5)).part("u", with_labels("yes"))
    assert [len(capped.read("train")), len(first.read("train"))] == [5, 18]


def test_a_part_without_a_test_row_says_so_and_none_is_read_before() -> None:
    loads = Loads()
    none = Task("t", "", "", ("yes", "no"), "here", loads).part("t-1", with_labels("maybe"))
    assert loads.asked == []
    with pytest.raises(ValueError, match=r"task 't-1': the test split is empty \(here\)"):
        none.read("test")


def test_another_occurrence_has_the_content_of_the_first() -> None:
    first = task()
    again = first.again("t@2").again("t@3")
    assert (again.name, again.content_name, again.shown_name) == ("t@3", "t", "t")
    assert again.train_hash == first.train_hash
    assert again.test_hash == task(name="t").test_hash != task(name="t@3").test_hash
    # a part of it is a task of its own
    assert again.part("w").content_name == "w"


def test_how_a_guest_is_asked_is_part_of_the_content() -> None:
    def hash_with(prompt: Prompt | None) -> str:
        guests = [Example("a guest", "maybe", prompt=prompt)]
        host = task().part("t", guests=lambda own: guests)
        assert host.read("train") == (*task().read("train"), *guests)
        assert host.test_hash == task().test_hash
        return host.train_hash

    prompts = [None, Prompt("Well? ", "a guest", ""), Prompt("", "a guest", " Well? "), Prompt("", "a guest", "")]
    assert len({task().train_hash, *map(hash_with, prompts)}) == 5
