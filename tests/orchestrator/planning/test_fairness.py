"""What is said or refused because it would compare something else than methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.method import MethodEntry
from orchestrator.config.search import Dimension
from orchestrator.config.training import TrainingConfig
from orchestrator.errors import UserError
from orchestrator.planning.fairness import doubt_about_rate, memory_shares
from orchestrator.planning.planner import plan
from tests.conftest import small_config


def entry(value: Any) -> MethodEntry:
    return MethodEntry.model_validate(value)


@pytest.mark.parametrize(
    ("method", "lr", "is_doubted"),
    [
        ("coso", 5e-4, True),
        ("coso", 1e-3, False),
        ("coso", 1e-2, False),
        ("coso", 1.01e-2, True),
        ("ft", 5e-4, False),
        ("l2p", 5e-4, True),
        ("progprompt", 0.3, False),
        ("nmc", 5e-4, False),
        ("zero-shot", 1.0, False),
    ],
)
def test_a_rate_outside_the_declared_ones_is_doubted(method: str, lr: float, is_doubted: bool) -> None:
    assert bool(doubt_about_rate(entry(method), TrainingConfig(lr=lr))) == is_doubted


def test_the_line_names_the_range_and_the_default() -> None:
    line = doubt_about_rate(entry("coso"), TrainingConfig(lr=5e-4))
    assert line.startswith("coso: training.lr 0.0005 lies outside the rates of 'coso', 0.001 to 0.01")
    assert line.endswith("its default is 0.003")


@pytest.mark.parametrize(
    ("searched", "is_doubted"),
    [
        ([1e-4, 2e-4, 1e-3], True),
        ([1e-4, 2e-4, 1e-3, 2e-3], False),
        ({"low": 1e-5, "high": 1e-3, "log": True}, True),
        ({"low": 1e-3, "high": 1e-1, "log": True}, False),
    ],
)
def test_a_search_is_doubted_where_most_of_its_rates_are(searched: Any, is_doubted: bool) -> None:
    line = doubt_about_rate(entry("coso"), TrainingConfig(lr=3e-3), Dimension.model_validate(searched))
    assert line.startswith("coso: most rates of the search lie outside") == is_doubted


def test_it_is_said_once_a_method(tmp_path: Path) -> None:
    config = small_config(tmp_path, methods=["ft", "coso"], training={"lr": 5e-4}, seeds=[1, 2], stream={"first": 2})
    lines: list[str] = []
    plan(config, warn=lines.append)
    assert len([line for line in lines if "training.lr" in line]) == 1


def test_unequal_memories_are_refused_naming_both() -> None:
    with pytest.raises(UserError) as caught:
        memory_shares([entry("ft"), entry("replay"), entry("conpet")])
    message = str(caught.value)
    assert "'replay' keeps 2 %" in message
    assert "'conpet' 100 %" in message
    assert "\n" not in message


def test_equal_memories_are_given_by_label() -> None:
    nothing = {"name": "none kept", "plugins": [{"name": "replay", "fraction": 0.0}]}
    assert memory_shares(map(entry, ["ft", "replay", nothing, "der++", "sapt"])) == {
        "replay": 0.02,
        "der++": 0.02,
        "sapt": 0.02,
    }
