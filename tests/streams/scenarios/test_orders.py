"""Other orders of the tasks."""

from __future__ import annotations

import pytest

from streams.scenarios.orders import Order, Permuted, Repeated, Reversed
from tests.streams.scenarios.small import digest, stream_of, task_of

STREAM = stream_of(*(task_of(name=name) for name in "abcd"))


def test_orders_keep_each_task_as_it_is() -> None:
    turned = Reversed().apply(STREAM)
    assert turned.task_names == ("d", "c", "b", "a")
    assert turned.tasks[0] is STREAM.tasks[3]
    assert turned.name == "s"


def test_a_seed_draws_an_order_whatever_order_the_stream_has() -> None:
    expected = tuple(sorted("abcd", key=lambda name: digest(3, "permuted", name)))
    assert Permuted(seed=3).apply(STREAM).task_names == expected
    assert Permuted(seed=3).apply(Reversed().apply(STREAM)).task_names == expected
    # written down, so that no change of ours goes unseen
    assert Permuted(seed=0).apply(STREAM).task_names == ("d", "a", "b", "c")
    assert len({Permuted(seed=seed).apply(STREAM).task_names for seed in range(60)}) > 15


def test_tasks_come_as_they_are_named() -> None:
    stream = Order(tasks=("c", "a", "c")).apply(STREAM)
    assert stream.task_names == ("c", "a", "c@2")
    assert Repeated(times=2).apply(STREAM.first(2)).task_names == ("a", "b", "a@2", "b@2")
    with pytest.raises(ValueError, match="stream 's': scenario 'order': unknown task 'x'"):
        Order(tasks=("a", "x")).apply(STREAM)
