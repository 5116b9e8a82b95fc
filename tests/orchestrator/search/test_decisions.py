"""The rounds of a search: which trials are a trial's history."""

from __future__ import annotations

import pytest

from orchestrator.config.search import SearchConfig
from orchestrator.search.decisions import first_of_round


@pytest.mark.parametrize(
    ("at_once", "firsts"),
    [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 0, 0, 3, 3, 3, 6]), (10, [0, 0, 0, 0, 0, 0, 0])],
)
def test_rounds_by_hand(at_once: int, firsts: list[int]) -> None:
    """One at a time, each trial learns from all before it; where all fit into one round, from none."""
    search = SearchConfig.model_validate({"streams": ["embedded-tuning"], "at_once": at_once})
    assert [first_of_round(search, number) for number in range(7)] == firsts
