"""Near-duplicates by hand."""

from __future__ import annotations

import random
import time

import pytest

from streams.holdout.near_duplicates import ShingleIndex, shingles

TEN = "a b c d e f g h i j"  # six shingles


@pytest.mark.parametrize(
    ("text", "similarity"),
    [
        (TEN, 1.0),
        ("a b c d e f g h i z", 5 / 7),  # five of six are shared: 5 / (6 + 6 - 5)
        ("a b c d z f g h i j", 1 / 11),  # only the last run of five is shared
        ("a b c d e f g", 3 / 6),  # three of six
        ("a b c d e f", 2 / 6),
        ("a b c d", 0.0),  # a short text is one run of its own
        ("j i h g f e d c b a", 0.0),
    ],
)
def test_similarity_by_hand(text: str, similarity: float) -> None:
    assert ShingleIndex([TEN, "k l m n"]).nearest(text) == (pytest.approx(similarity), 0 if similarity else -1)


def test_shingles() -> None:
    assert [len(shingles(text)) for text in ("", "a", "a b c d", "a b c d e", TEN, "a a a a a a a a")] == [
        1,
        1,
        1,
        1,
        6,
        1,
    ]
    assert shingles("a b c d") != shingles("a b c e")


def test_stock_phrases_are_not_followed_but_count() -> None:
    index = ShingleIndex([f"one two three four five w{i} x{i} y{i}" for i in range(201)])
    # "one two three four five" is in 201 texts; it and two more runs are shared: 3 / (4 + 4 - 3)
    assert index.nearest("one two three four five w7 x7 z") == (3 / 5, 7)
    assert index.nearest("one two three four five q q q") == (0.0, -1)
    few = ShingleIndex([f"one two three four five w{i} x{i} y{i}" for i in range(200)])
    assert few.nearest("one two three four five q q q") == (1 / 7, 0)


@pytest.mark.slow
def test_ten_thousand_texts_take_seconds() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    ours, theirs = ([" ".join(rng.choices(words, k=100)) for _ in range(10_000)] for _ in range(2))
    theirs[:50] = [text.rsplit(" ", 10)[0] for text in ours[:50]]
    start = time.process_time()
    index = ShingleIndex(ours)
    near = [number for similarity, number in map(index.nearest, theirs) if similarity >= 0.5]
    assert near == list(range(50))
    assert time.process_time() - start < 30
