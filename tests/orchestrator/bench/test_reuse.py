"""What sharing a store saves counts right; its times are nobody's promise."""

from __future__ import annotations

import pytest
from rich.console import Console

from orchestrator.bench.reuse import search_reuse

pytestmark = pytest.mark.slow


def test_a_search_trains_the_first_task_once_for_each_rate() -> None:
    result = search_reuse(Console(quiet=True), max_train=16)
    # at each of two rates: fine-tuning five tasks; six ratios and the random mask four each, sharing the first
    assert (result["tasks_naive"], result["tasks_trained"]) == (2 * 8 * 5, 2 * (5 + 7 * 4))
    assert result["equal_results"]
