"""Which rows are used, and the dev split."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from streams import (
    SPLITS,
    Example,
    Limits,
    Task,
    bare_text,
    carve_dev,
)
from tests.streams.examples import ROWS, task


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


def test_the_row_number_is_no_part_of_the_example() -> None:
    assert Example("a", "b", 1) == Example("a", "b", 2)
    assert task([Example(e.text, e.label, 5) for e in ROWS]).train_hash == task().train_hash


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
