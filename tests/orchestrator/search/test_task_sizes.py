"""Whether tuning and evaluation pose the same problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.search.definition import prepare
from tests.orchestrator.search.searches import TUNING, search_config


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"max_train": 30}, ["not the same scenario", "30 train examples (4 steps)", "24 (3 steps)"]),
        ({"first": 2}, ["not the same scenario", "has 2 tasks, 'embedded' has 3"]),
    ],
)
def test_unequal_scenarios_are_refused(tmp_path: Path, change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        prepare(search_config(tmp_path, ["ft"], streams=[{**TUNING, **change}]), gpu=False)
    for part in parts:
        assert part in str(caught.value)


def test_the_scenario_has_examples_and_steps_of_each_task(tmp_path: Path) -> None:
    assert prepare(search_config(tmp_path, ["ft"]), gpu=False).scenario == ((24, 3),) * 3


def test_a_budget_is_the_scenarios_length(tmp_path: Path) -> None:
    budget = {"budget": {"tokens": 900}}
    assert prepare(search_config(tmp_path, ["ft"], training=budget), gpu=False).scenario == ((24, 900),) * 3
