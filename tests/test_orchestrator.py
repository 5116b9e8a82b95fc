"""What the package offers is there by its name, and is imported when it is asked for."""

from __future__ import annotations

import pytest

import orchestrator
from orchestrator.planning.planner import plan


def test_each_name_is_what_its_home_defines() -> None:
    assert orchestrator.plan is plan
    for name in orchestrator.__all__:
        found = getattr(orchestrator, name)
        assert found.__name__ == name
        assert found.__module__ == orchestrator._HOMES[name]


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'orchestrator' has no attribute 'nothing'"):
        _ = orchestrator.nothing
