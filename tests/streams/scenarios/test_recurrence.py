"""Tasks that come again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from streams.scenarios.recurrence import Recurrence
from tests.streams.scenarios.small import stream_of, task_of, uniform

STREAM = stream_of(*(task_of(name=name) for name in "abcd"))


def letters(**settings: Any) -> str:
    """The tasks that come, each by its letter."""
    stream = Recurrence.model_validate(settings).apply(STREAM)
    return "".join(name[0] for name in stream.task_names)


def written_out(positions: int, every: int, seed: int, weight: Callable[[int], float]) -> str:
    """The rule in a few lines: a new task every so often, else one by the weights of their ages."""
    last: dict[str, int] = {}
    came = ""
    for t in range(1, positions + 1):
        if (t - 1) % every == 0 and len(last) < 4:
            task = "abcd"[len(last)]
        else:
            total = sum(weight(t - s) for s in last.values())
            left = uniform(seed, "recurrence", t) * total
            for candidate, s in last.items():
                task = candidate
                left -= weight(t - s)
                if left < 0:
                    break
        last[task] = t
        came += task
    return came


@pytest.mark.parametrize(
    ("law", "weight"),
    [
        ("power", lambda age: age**-1.5),
        ("exponential", lambda age: math.exp(-1.5 * age)),
        ("uniform", lambda age: 1.0),
    ],
)
@pytest.mark.parametrize(("every", "seed"), [(2, 0), (3, 7), (1, 2)])
def test_tasks_come_by_the_law(law: str, weight: Callable[[int], float], every: int, seed: int) -> None:
    found = letters(positions=60, law=law, alpha=1.5, every=every, seed=seed)
    assert found == written_out(60, every, seed, weight)
    # new ones at their turn, in the stream's order
    assert [found.index(letter) for letter in "abcd"] == [0, every, 2 * every, 3 * every]


def test_what_is_recent_comes_more_often_the_steeper_the_law() -> None:
    def share_of_repeats(**settings: Any) -> float:
        came = letters(positions=2000, **settings)
        return sum(one == other for one, other in itertools.pairwise(came)) / 2000

    assert share_of_repeats(law="uniform") == pytest.approx(0.25, abs=0.04)
    assert share_of_repeats(alpha=0) == pytest.approx(0.25, abs=0.04)
    assert 0.3 < share_of_repeats(alpha=1) < share_of_repeats(alpha=3) - 0.1


def test_a_longer_stream_has_the_same_beginning() -> None:
    long = letters(positions=40)
    assert letters(positions=12) == long[:12] == "aabbcbdbbdcc"
    names = Recurrence(positions=12).apply(STREAM).task_names
    assert len(set(names)) == 12


def test_too_few_positions_for_all_tasks_are_refused() -> None:
    assert letters(positions=7, every=2)[::2] == "abcd"
    with pytest.raises(
        ValueError, match="positions: 6, but the last of 4 tasks comes first at position 7; `first` takes"
    ):
        letters(positions=6, every=2)
