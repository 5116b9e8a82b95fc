"""Draws from a seed."""

from __future__ import annotations

import pytest

from streams.scenarios.draws import draw, in_drawn_order, weighted_choice
from tests.streams.scenarios.small import digest, uniform


def test_a_draw_is_a_function_of_its_parts_alone() -> None:
    assert draw(3, "scole", 7) == uniform(3, "scole", 7)
    # the SHA-256 of "0\nx" begins with fa9d1b02, and 0xfa9d1b02 / 2^32 = 0.97895974
    assert draw(0, "x") == pytest.approx(0.97895974, abs=1e-8)
    numbers = [draw(seed, "x") for seed in range(2000)]
    assert min(numbers) >= 0 and max(numbers) < 1
    assert sum(numbers) / 2000 == pytest.approx(0.5, abs=0.03)


def test_an_order_depends_on_the_set_of_names() -> None:
    names = ["a", "b", "c", "d", "e"]
    expected = sorted(names, key=lambda name: digest(5, "order", name))
    assert in_drawn_order(names, 5, "order") == in_drawn_order(names[::-1], 5, "order") == expected
    assert len({tuple(in_drawn_order(names, seed)) for seed in range(40)}) > 25


@pytest.mark.parametrize(("drawn", "index"), [(0.0, 0), (0.24, 0), (0.26, 2), (0.99, 2)])
def test_an_index_has_a_share_by_its_weight(drawn: float, index: int) -> None:
    # shares 1/4, none, 3/4 and none
    assert weighted_choice([0.5, 0, 1.5, 0], drawn) == index


def test_rounding_never_points_behind_the_last_weight() -> None:
    assert weighted_choice([0.1, 0.2, 0.0], 1.0) == 1
