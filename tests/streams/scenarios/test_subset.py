"""Subsets for several epochs."""

from __future__ import annotations

import pytest

from streams import Limits
from streams.scenarios.orders import Repeated
from streams.scenarios.subset import Subset
from tests.streams.scenarios.small import stream_of, task_of

TASK = task_of("a b c", each=10, limits=Limits(dev_fraction=0.2))


@pytest.mark.parametrize(("fraction", "count"), [(0.25, 6), (0.1, 3), (0.001, 1), (1, 24)])
def test_a_share_of_train_is_kept_rounded_up(fraction: float, count: int) -> None:
    (part,) = Subset(fraction=fraction).apply(stream_of(TASK)).tasks
    # 24 of the 30 rows are train rows
    assert part.read("train") == TASK.read("train")[:count]
    assert part.read("dev") == TASK.read("dev")
    assert part.test_hash == TASK.test_hash
    assert part.name == "t" and part.epochs is None
    assert (part.train_hash == TASK.train_hash) == (fraction == 1)


def test_the_share_is_of_what_a_cap_leaves() -> None:
    hundred = task_of("a b", each=50)
    # as floats, 0.07 x 100 is more than 7
    assert len(Subset(fraction=0.07).apply(stream_of(hundred)).tasks[0].read("train")) == 7
    capped = task_of("a b c", each=10, limits=Limits(max_train=12, dev_fraction=0))
    (part,) = Subset(fraction=0.5, epochs=3).apply(stream_of(capped)).tasks
    assert part.read("train") == capped.read("train")[:6]
    assert part.epochs == 3


def test_occurrences_keep_one_content() -> None:
    stream = Subset(fraction=0.5, epochs=2).apply(Repeated(times=2).apply(stream_of(TASK)))
    assert stream.task_names == ("t", "t@2")
    first, second = stream.tasks
    assert first.train_hash == second.train_hash != TASK.train_hash
    assert first.test_hash == second.test_hash == TASK.test_hash
    # a second subset without epochs of its own leaves those of the first
    assert Subset(fraction=0.5).apply(stream).tasks[1].epochs == 2
    assert len(Subset(fraction=0.5).apply(stream).tasks[1].read("train")) == 6


@pytest.mark.parametrize("settings", [{"fraction": 0}, {"fraction": 1.5}, {"fraction": 0.5, "epochs": 0}])
def test_shares_that_are_none_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        Subset.model_validate(settings)
