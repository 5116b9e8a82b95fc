"""Orders by likeness."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streams import Example, Limits, Task
from streams.scenarios.similarity import BySimilarity, cosine, tf_idf
from tests.streams.scenarios.small import WHOLE, Asked, stream_of


def of_text(name: str, text: str) -> Task:
    return Task(name, "", "", ("a",), "here", Asked([Example(text, "a")]), WHOLE)


# x and y share two words of three, x and z one, y and z none, and w has a word of its own
TEXTS = {"x": "one two three", "w": "seven", "z": "Three! six six", "y": "one two five"}
STREAM = stream_of(*(of_text(name, text) for name, text in TEXTS.items()))


def test_vectors_and_cosines() -> None:
    vectors = tf_idf([[text] for text in TEXTS.values()])
    # four documents: `one` and `three` are in two of them, `six` in one, twice
    twice = math.log(4 / 2) + 1
    once = math.log(4 / 1) + 1
    assert vectors[0] == pytest.approx({"one": twice, "two": twice, "three": twice})
    assert vectors[2] == pytest.approx({"three": twice, "six": 2 * once})
    expected = twice * twice / (math.sqrt(3) * twice * math.sqrt(twice**2 + (2 * once) ** 2))
    assert cosine(vectors[0], vectors[2]) == pytest.approx(expected)
    assert cosine(vectors[0], vectors[1]) == 0
    assert cosine({}, vectors[0]) == 0
    assert cosine(vectors[3], vectors[3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({}, "xywz"),
        ({"order": "near-to-far"}, "xyzw"),
        ({"order": "far-to-near"}, "xwzy"),
        ({"order": "nearest-next", "start": "z"}, "zxyw"),
        ({"order": "farthest-next", "start": "z"}, "zwxy"),
        ({"order": "near-to-far", "start": "y"}, "yxwz"),
    ],
)
def test_tasks_come_by_likeness(settings: dict[str, Any], order: str) -> None:
    # after x and y, which has nothing in common with either, w comes before z as in the stream
    stream = BySimilarity.model_validate(settings).apply(STREAM)
    assert "".join(stream.task_names) == order


def test_so_many_rows_of_train_are_read_and_no_test_split() -> None:
    loads = {"a": Asked([Example("five", "a")]), "b": Asked([Example(word, "a") for word in ("five", "six", "seven")])}
    loads["c"] = Asked([Example("five eight", "a")])
    # of the seeds' orders one in which the row of b that is like a comes first
    for seed in range(50):
        limits = Limits(dev_fraction=0, seed=seed)
        stream = stream_of(*(Task(name, "", "", ("a",), "here", load, limits) for name, load in loads.items()))
        if stream.tasks[1].read("train")[0].text == "five":
            break
    assert "".join(BySimilarity(order="near-to-far", rows=1).apply(stream).task_names) == "abc"
    assert "".join(BySimilarity(order="near-to-far").apply(stream).task_names) == "acb"
    assert {split for load in loads.values() for split in load.splits} == {"train"}


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(ValueError, match="stream 's': scenario 'similarity': unknown task 'v'"):
        BySimilarity(start="v").apply(STREAM)
