"""Scenarios by their names."""

from __future__ import annotations

from typing import Any

import pytest

from streams import SCENARIOS, find_scenarios
from streams.scenarios.orders import Permuted, Reversed


def test_a_scenario_is_a_name_or_a_mapping_or_several_of_them() -> None:
    assert find_scenarios("reversed") == (Reversed(),)
    assert find_scenarios({"name": "permuted", "seed": 3}) == (Permuted(seed=3),)
    several = find_scenarios(["reversed", {"name": "permuted"}])
    assert several == (Reversed(), Permuted(seed=0))
    assert find_scenarios(several) == several
    assert find_scenarios([]) == ()


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("revresed", "unknown scenario 'revresed'. Did you mean 'reversed'? Known: class-incremental, scole,"),
        (3, "expected a scenario's name, or a mapping with a `name`, found 3"),
        ({"seed": 3}, "expected a scenario's name, or a mapping with a `name`"),
        ({"name": "permuted", "sed": 3}, "unknown key 'sed'. Did you mean 'seed'? Known: name, seed"),
    ],
)
def test_what_names_no_scenario_is_refused(entry: Any, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        find_scenarios(entry)
    assert part in str(caught.value)


def test_each_goes_by_the_name_that_it_has_itself() -> None:
    for name, scenario in SCENARIOS.items():
        assert scenario.model_fields["name"].default == name
        assert scenario.summary
        # a seed has to have a value where nothing is written, so that the same file gives the same stream
        if "seed" in scenario.model_fields and name != "class-incremental":
            assert scenario.model_fields["seed"].default == 0
