"""HLE: coarse labels first."""

from __future__ import annotations

from typing import Any

import pytest

from streams import Stream
from streams.scenarios.hierarchy import Hierarchy
from streams.scenarios.subset import Subset
from tests.streams.scenarios.small import digest, stream_of, task_of, texts, uniform

TWO = {"V": ["a", "e"], "C": ["b", "c", "d"]}
THREE = {"all": {"V": ["a", "e"], "C": ["b", "c", "d"]}, "none": {"X": ["x"]}}
TASK = task_of("a b c d e", each=20)
COARSE = {"a": "V", "e": "V", "b": "C", "c": "C", "d": "C"}


def expanded(hierarchy: dict[str, Any] = TWO, **settings: Any) -> Stream:
    values = {"hierarchy": hierarchy, **settings}
    return Hierarchy.model_validate(values).apply(stream_of(TASK))


def test_rows_have_the_label_of_the_level_and_one_level_each() -> None:
    first, second = expanded(seed=4).tasks
    assert [first.name, second.name] == ["t-level1", "t-level2"]
    assert (first.labels, second.labels) == (("V", "C"), ("a", "e", "b", "c", "d"))
    levels: list[list[tuple[str, str]]] = [[], []]
    for text in texts(TASK):
        level = int(uniform(4, "hierarchy", "level", text) * 2)
        levels[level].append((text, COARSE[text[-1]] if level == 0 else text[-1]))
    assert sorted((e.text, e.label) for e in first.read("train")) == levels[0]
    assert sorted((e.text, e.label) for e in second.read("train")) == levels[1]
    # every test row at each level
    assert sorted((e.text, e.label) for e in first.read("test")) == [(t, COARSE[t[-1]]) for t in texts(TASK, "test")]
    assert texts(second, "test") == texts(TASK, "test")
    assert (first.dropped_rows("train"), second.dropped_rows("train")) == (0, 0)
    assert str(first.prompt("A.")).startswith("Task:Cat\nDataset:t\nWell? Option: V, C ")


def test_rows_may_come_at_every_level() -> None:
    for task in expanded(data="overlapping").tasks:
        assert texts(task) == texts(TASK)


def test_a_level_comes_in_several_tasks() -> None:
    stream = expanded(expansions=2, seed=1)
    assert stream.task_names == ("t-level1", "t-level2-1", "t-level2-2")
    drawn = sorted(TWO, key=lambda label: digest(1, "hierarchy", 1, label))
    assert [task.labels for task in stream.tasks[1:]] == [tuple(TWO[parent]) for parent in drawn]
    first, second, third = stream.tasks
    assert sorted(texts(first) + texts(second) + texts(third)) == texts(TASK)
    assert {text[-1] for text in texts(second, "test")} == set(TWO[drawn[0]])
    orders = set()
    for seed in range(8):
        orders.add(expanded(expansions=2, seed=seed).tasks[1].labels)
    assert len(orders) == 2


def test_three_levels() -> None:
    task = task_of("a b c d e x", each=10)
    stream = Hierarchy(hierarchy=THREE).apply(stream_of(task))
    assert [part.labels for part in stream.tasks] == [("all", "none"), ("V", "C", "X"), ("a", "e", "b", "c", "d", "x")]
    found: list[str] = []
    for part in stream.tasks:
        found += texts(part)
    assert sorted(found) == texts(task)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"hierarchy": {"V": ["a"], "C": {"D": ["b"]}}}, "its labels are at different depths: 2, 3"),
        ({"hierarchy": {"V": ["a", "b"], "C": ["b"]}}, "the label 'b' is at two places"),
        ({"hierarchy": {"V": ["a", "a"]}}, "the label 'a' is at two places"),
        ({"hierarchy": {"a": ["a"]}}, "the label 'a' is at two places"),
        ({"hierarchy": {"V": "a"}}, "below 'V' expected a list of labels or a mapping of labels, found 'a'"),
        ({"hierarchy": {}}, "expected a mapping of coarse labels to finer ones, found none"),
        ({"hierarchy": {"V": ["a", "f"]}}, "scenario 'hierarchy': hierarchy: unknown label 'f'"),
        ({"hierarchy": {"V": ["a", "b", "c", "d"]}}, "hierarchy: the label 'e' of task 't' is not in it"),
        ({"expansions": 3}, "expansions: 3, but level 1 has 2 labels"),
        ({"hierarchy": {"C": ["a", "e"], "c!": ["b", "c", "d"]}}, "'C' and 'c!' are equal to the scorer"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        expanded(**settings)


def test_rows_are_chosen_after_their_labels() -> None:
    whole = stream_of(TASK)
    with pytest.raises(ValueError, match="it gives other labels, so it comes before the scenarios that choose rows"):
        Hierarchy(hierarchy=TWO).apply(Subset(fraction=0.5).apply(whole))
    assert len(Subset(fraction=0.5).apply(Hierarchy(hierarchy=TWO).apply(whole)).tasks) == 2
