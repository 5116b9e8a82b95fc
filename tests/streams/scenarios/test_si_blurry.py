"""Si-Blurry: disjoint classes, and blurry ones of which rows stray."""

from __future__ import annotations

import bisect
from typing import Any

import pytest

from streams import Stream
from streams.scenarios.si_blurry import SiBlurry
from tests.streams.scenarios.small import digest, stream_of, task_of, texts, uniform

LABELS = "abcdefghij"
TASK = task_of(" ".join(LABELS), each=40)


def blurred(**settings: Any) -> Stream:
    return SiBlurry.model_validate(settings).apply(stream_of(TASK))


def test_every_row_is_in_one_task() -> None:
    stream = blurred(num_tasks=4)
    for split in ("train", "test"):
        found: list[str] = []
        for task in stream.tasks:
            found += texts(task, split)  # type: ignore[arg-type]
        assert sorted(found) == texts(TASK, split)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 5, 6])
def test_classes_are_dealt_and_rows_stray_as_written_out(seed: int) -> None:
    num_tasks, share = 3, 0.4
    ranked = sorted(LABELS, key=lambda label: digest(seed, "si-blurry", label))
    # 0.3 x 10 disjoint classes, dealt by two cuts; the seven others: three, two and two
    disjoint, blurry = ranked[:3], ranked[3:]
    cuts = sorted(uniform(seed, "si-blurry", "disjoint", i) for i in range(2))
    home = {label: bisect.bisect(cuts, (i + 0.5) / 3) for i, label in enumerate(disjoint)}
    home.update(zip(blurry, (0, 0, 0, 1, 1, 2, 2), strict=True))
    shares = sorted(uniform(seed, "si-blurry", "shares", i) for i in range(2))
    expected: list[list[str]] = [[], [], []]
    num_moved = 0
    for text in texts(TASK):
        label = text[-1]
        target = home[label]
        if label in blurry and uniform(seed, "si-blurry", "moved", text) < share:
            target = bisect.bisect(shares, uniform(seed, "si-blurry", "to", text))
            num_moved += 1
        expected[target].append(text)
    stream = blurred(num_tasks=num_tasks, disjoint=0.3, blurry=share, seed=seed)
    assert [texts(task) for task in stream.tasks] == expected
    assert num_moved / 280 == pytest.approx(share, abs=0.08)
    for index, task in enumerate(stream.tasks):
        assert {text[-1] for text in texts(task, "test")} == {label for label in LABELS if home[label] == index}
        assert task.labels == tuple(label for label in LABELS if home[label] == index or label in blurry)


def test_without_strays_the_tasks_share_no_class() -> None:
    stream = blurred(num_tasks=3, blurry=0)
    labels = [set(task.labels) for task in stream.tasks]
    assert sum(map(len, labels)) == 10
    for task, own in zip(stream.tasks, labels, strict=True):
        assert {example.label for example in task.read("train")} == own


@pytest.mark.parametrize("disjoint", [0, 0.5, 1])
def test_every_task_has_a_class_at_home(disjoint: float) -> None:
    for seed in range(10):
        for task in blurred(num_tasks=7, disjoint=disjoint, seed=seed).tasks:
            assert task.read("test")
    with pytest.raises(
        ValueError, match="num_tasks: 11, but task 't' has 10 labels, and each task needs one of its own"
    ):
        blurred(num_tasks=11)


def test_disjoint_classes_come_in_unequal_numbers() -> None:
    sizes = set()
    for seed in range(10):
        sizes.add(tuple(len(task.labels) for task in blurred(num_tasks=3, disjoint=1, seed=seed).tasks))
    assert len(sizes) > 4
