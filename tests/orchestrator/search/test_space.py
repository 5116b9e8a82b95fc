"""What a search tries: declared by the methods, changed by the user, drawn in pairs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.method import MethodEntry
from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.errors import UserError
from orchestrator.search.space import (
    check_grid,
    declared_space,
    grid,
    random_draws,
    size_of,
    space_of,
    value_at,
    with_values,
)
from tests.conftest import small_config


def search(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate({"streams": ["embedded-tuning"], **changes})


def entry(value: Any) -> MethodEntry:
    return MethodEntry.model_validate(value)


def test_a_method_declares_its_space() -> None:
    assert set(declared_space(entry("ft"))) == {"training.lr"}
    assert set(declared_space(entry("ft+migu"))) == {"training.lr", "migu.ratio"}
    assert set(declared_space(entry("lora+random"))) == {"training.lr", "lora.r", "random_mask.ratio"}


def test_users_change_it_for_all_and_for_one() -> None:
    changed = search(space={"migu.ratio": [0.2, 0.9], "training.lrs.head": [0.01]})
    method = entry({"preset": "ft+migu", "space": {"training.lr": {"low": 1e-5, "high": 1e-3, "log": True}}})
    space = space_of(changed, method)
    assert space["migu.ratio"].values == (0.2, 0.9)
    assert space["training.lrs.head"].values == (0.01,)
    assert (space["training.lr"].low, space["training.lr"].high) == (1e-5, 1e-3)
    assert "migu.ratio" not in space_of(changed, entry("ft"))


@pytest.mark.parametrize(
    ("space", "part"),
    [
        ({"migu.ratio": [0.3, 1.5]}, "migu.ratio: 1.5 is not allowed for ft+migu"),
        ({"training.lr": {"low": -1, "high": 1}}, "training.lr: -1.0 is not allowed"),
    ],
)
def test_values_are_checked_before_the_first_trial(space: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        space_of(search(space=space), entry("ft+migu"))
    assert part in str(caught.value)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown parameter 'migu\.ration'\. Did you mean 'migu.ratio'"):
        space_of(search(), entry({"preset": "ft+migu", "space": {"migu.ration": [0.1]}}))


def test_values_make_a_method() -> None:
    values = {"training.lr": 0.5, "training.lrs.head": 0.1, "migu.ratio": 0.7, "lora.r": 4}
    made = with_values(entry("lora+migu"), values)
    assert made.label == "lora+migu"
    assert made.training == {"lr": 0.5, "lrs": {"head": 0.1}}
    assert made.tuning.settings["r"] == 4
    assert made.plugins[0].settings["ratio"] == 0.7


SPACE = {"training.lr": Dimension(values=(1.0, 2.0, 3.0, 4.0)), "migu.ratio": Dimension(values=(0.1, 0.5))}


def test_random_draws_are_distinct_and_cover_the_space() -> None:
    drawn = [tuple(values.values()) for values in random_draws(SPACE, 0)]
    assert sorted(drawn) == sorted(itertools.product((1.0, 2.0, 3.0, 4.0), (0.1, 0.5)))
    again = [tuple(values.values()) for values in random_draws(SPACE, 0)]
    assert again == drawn
    assert [tuple(values.values()) for values in random_draws(SPACE, 1)] != drawn


def test_each_value_comes_equally_often_and_methods_are_paired() -> None:
    four = list(itertools.islice(random_draws(SPACE, 3), 4))
    assert Counter(v["training.lr"] for v in four) == {1.0: 1, 2.0: 1, 3.0: 1, 4.0: 1}
    alone = list(random_draws({"training.lr": SPACE["training.lr"]}, 3))
    assert [v["training.lr"] for v in alone] == [v["training.lr"] for v in four]


def test_ranges_are_drawn_within_their_bounds() -> None:
    space = {
        "a.log": Dimension(low=1e-5, high=1e-1, log=True),
        "a.flat": Dimension(low=-1, high=1),
        "a.whole": Dimension(low=2, high=5, integer=True),
    }
    drawn = list(itertools.islice(random_draws(space, 0), 400))
    logs = [v["a.log"] for v in drawn]
    assert all(1e-5 <= x <= 1e-1 for x in logs)
    assert 150 < sum(x < 1e-3 for x in logs) < 250, "half of the draws lie below the geometric middle"
    assert all(-1 <= v["a.flat"] <= 1 for v in drawn)
    assert {v["a.whole"] for v in drawn} == {2, 3, 4, 5}


def test_the_grid() -> None:
    assert [tuple(v.values()) for v in grid(SPACE)][:3] == [(1.0, 0.1), (1.0, 0.5), (2.0, 0.1)]
    assert len(list(grid(SPACE))) == 8


def test_a_grid_needs_listed_values_and_as_many_trials() -> None:
    check_grid(SPACE, "ft", 8)
    with pytest.raises(UserError, match="the grid of ft has 8 points, but there are 7 trials"):
        check_grid(SPACE, "ft", 7)
    with pytest.raises(UserError, match="a grid needs listed values"):
        check_grid({"a.flat": Dimension(low=0, high=1)}, "ft", 100)


def test_sizes() -> None:
    assert size_of({}) == 1, "there is one way to choose nothing"
    assert size_of(SPACE) == 8
    assert size_of(SPACE | {"a.whole": Dimension(low=2, high=5, integer=True)}) == 32
    assert size_of(SPACE | {"a.flat": Dimension(low=0, high=1)}) == math.inf


def test_a_fraction_of_a_range_by_hand() -> None:
    assert value_at(Dimension(low=-1, high=3), 0.25) == 0.0
    assert value_at(Dimension(low=1e-4, high=1e-2, log=True), 0.5) == 1e-3
    assert value_at(Dimension(low=2, high=5, integer=True), 0.5) == 4, "3.5 rounds to the even number"
    assert value_at(Dimension(low=0, high=1), 1 / 3) == 0.333333, "six digits"


def test_groups_of_rates_that_are_not_searched_stay(tmp_path: Path) -> None:
    config = small_config(tmp_path, training={"lrs": {"shared*": 0.5, "head": 0.1}})
    made = with_values(config.methods[0], {"training.lrs.head": 0.2})
    assert config.training_for(made).lrs == {"shared*": 0.5, "head": 0.2}
