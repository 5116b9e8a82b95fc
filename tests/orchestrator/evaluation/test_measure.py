"""Units and directions."""

from __future__ import annotations

from orchestrator.evaluation.measure import PERCENT, Measure


def test_a_difference_of_percentages_is_in_points_and_others_keep_their_unit() -> None:
    lower = Measure("perplexity", "lower", 2)
    assert (PERCENT.unit_of_changes, lower.unit_of_changes) == ("points", "perplexity")
    assert (PERCENT.sign, lower.sign) == (1, -1)
    assert Measure() == PERCENT
