"""SCoLe: a few classes at a time, drawn anew."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from streams import Stream
from streams.scenarios.scole import Scole
from tests.streams.scenarios.small import Asked, digest, stream_of, task_of, texts, uniform

TASK = task_of("a b c d e")


def scole(**settings: Any) -> Stream:
    return Scole.model_validate(settings).apply(stream_of(TASK))


def classes_of(stream: Stream) -> list[str]:
    """The classes that each position trains on."""
    return ["".join(sorted({example.label for example in task.read("train")})) for task in stream.tasks]


def test_a_position_trains_on_all_rows_of_its_classes_and_is_scored_on_all_classes() -> None:
    stream = scole(positions=30, classes_per_task=2)
    assert stream.task_names[:2] == ("t@1", "t@2")
    for task, classes in zip(stream.tasks, classes_of(stream), strict=True):
        assert len(classes) == 2
        assert texts(task) == [text for text in texts(TASK) if text[-1] in classes]
        assert task.labels == TASK.labels
    assert {task.test_hash for task in stream.tasks} == {TASK.test_hash}
    assert {text[-1] for text in texts(stream.tasks[0], "test")} == set("abcde")
    assert isinstance(TASK.load, Asked)
    assert sorted(TASK.load.splits) == ["test", "train"]


def test_a_longer_stream_has_the_same_beginning() -> None:
    short = scole(positions=5, seed=3)
    long = scole(positions=50, seed=3)
    assert [task.train_hash for task in short.tasks] == [task.train_hash for task in long.tasks[:5]]
    # written down, so that no change of ours goes unseen
    assert classes_of(short) == ["ac", "de", "de", "de", "cd"]
    assert classes_of(scole(positions=5, seed=4)) != classes_of(short)


def test_probabilities_fall_as_published() -> None:
    # p_c proportional to (1/C - c f/C)^e with C = 5, f = 0.2, e = 3: 1, 0.512, 0.216, 0.064, 0.008
    ranked = sorted("abcde", key=lambda label: digest(0, "scole", label))
    share = dict(zip(ranked, (1.0, 0.512, 0.216, 0.064, 0.008), strict=True))
    stream = scole(positions=1500, classes_per_task=1, step=0.2, entropy_decrease=3)
    # the draw of each position, written out: the label in whose share the number falls
    expected = []
    for position in range(1, 1501):
        left = uniform(0, "scole", position, 0) * 1.8
        for label in "abcde":
            left -= share[label]
            if left < 0:
                expected.append(label)
                break
    assert classes_of(stream) == expected
    counts = Counter(expected)
    assert counts[ranked[0]] / 1500 == pytest.approx(1 / 1.8, abs=0.05)


def test_without_a_power_all_classes_are_drawn_alike() -> None:
    counts = Counter(classes_of(scole(positions=1500, classes_per_task=2)))
    # ten pairs
    assert len(counts) == 10
    assert max(counts.values()) / 1500 < 0.14 and min(counts.values()) / 1500 > 0.07


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"positions": 3, "classes_per_task": 6}, "scenario 'scole': classes_per_task: 6, but task 't' has 5 labels"),
        ({"positions": 3, "step": 0.25, "entropy_decrease": 1}, "step: 0.25 leaves no probability .* less than 0.25"),
        ({"positions": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        scole(**settings)
