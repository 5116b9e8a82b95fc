"""What a search tries: declared by the methods, changed by the user, drawn in pairs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from methods import PRESETS
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


def test_a_method_without_gradient_steps_has_its_own_settings_to_try() -> None:
    """All values of FeTrIL's c, each once; of what trains nothing and has no settings, nothing. No rate for any of them."""
    space = space_of(search(), entry("fetril"))
    assert sorted(v["fetril.c"] for v in random_draws(space, 0)) == [1.0, 10.0, 100.0, 1000.0]
    assert all(list(v) == ["fetril.c"] for v in random_draws(space, 0))
    changed = space_of(search(space={"fetril.c": [2.0], "training.lr": [0.1]}), entry("fetril"))
    assert list(grid(changed)) == [{"fetril.c": 2.0}]
    for name in ("nmc", "zero-shot"):
        assert space_of(search(space={"training.lr": [0.1]}), entry(name)) == {}
    with pytest.raises(UserError, match=r"methods\.fetril\.space: unknown parameter 'training\.lr'"):
        space_of(search(), entry({"preset": "fetril", "space": {"training.lr": [0.1]}}))


def test_all_methods_have_as_many_trials_as_are_asked_for() -> None:
    """Of rates there is no list that plain fine-tuning could come to the end of."""
    for name in PRESETS:
        if entry(name).spec.trains_by_gradient:
            assert size_of(declared_space(entry(name))) == math.inf, name


@pytest.mark.parametrize(
    ("preset", "name"), [("replay", "replay.fraction"), ("der++", "derpp.fraction"), ("ft", "training.epochs")]
)
def test_what_the_scenario_fixes_is_not_searched(preset: str, name: str) -> None:
    message = f"search.space.{name}: methods would choose"
    with pytest.raises(UserError, match=message):
        space_of(search(space={name: [1, 2] if name == "training.epochs" else [0.1, 0.2]}), entry(preset))
    with pytest.raises(UserError, match=message):
        space_of(search(), entry({"preset": preset, "space": {name: [1]}}))


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


RATIOS = {"migu.ratio": Dimension(values=(0.1, 0.5)), "random_mask.ratio": Dimension(values=(1, 2, 3, 4, 5))}
RATES = {"training.lr": Dimension(values=(1.0, 2.0, 3.0)), "training.weight_decay": Dimension(values=(0.0, 0.1))}


@pytest.mark.parametrize("seed", range(5))
def test_trials_of_one_number_have_one_choice_of_training(seed: int) -> None:
    """Whatever else is searched, and beyond the first combination that comes again."""

    def training_of(**own: Dimension) -> list[tuple[float, float]]:
        drawn = itertools.islice(random_draws(RATES | own, seed), 12)
        return [(v["training.lr"], v["training.weight_decay"]) for v in drawn]

    few = training_of(**{"migu.ratio": RATIOS["migu.ratio"]})
    many = training_of(**{"random_mask.ratio": RATIOS["random_mask.ratio"]})
    alone = training_of()
    assert len(few) == len(many) == 12
    assert few == many
    assert few[:6] == alone, "nothing else is searched: every choice once, in the order in which the others have it"
    assert sorted(few[6:]) == sorted(alone), "then each once again"


def test_only_a_methods_own_parameters_are_drawn_again() -> None:
    """Rate and ratio come in rounds of three: trial 9 would repeat a combination of the first three rounds, or one before."""
    space = {"training.lr": Dimension(values=(1.0, 2.0, 3.0)), "a.b": Dimension(values=tuple(range(7)))}
    drawn = [tuple(v.values()) for v in random_draws(space, 1)]
    assert len(drawn) == len(set(drawn)) == 21
    rounds = [sorted(rate for rate, _ in drawn[n : n + 3]) for n in range(0, 21, 3)]
    assert rounds == [[1.0, 2.0, 3.0]] * 7


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


def test_groups_of_rates_that_are_not_searched_stay(tmp_path: Path) -> None:
    config = small_config(tmp_path, training={"lrs": {"shared*": 0.5, "head": 0.1}})
    made = with_values(config.methods[0], {"training.lrs.head": 0.2})
    assert config.training_for(made).lrs == {"shared*": 0.5, "head": 0.2}
