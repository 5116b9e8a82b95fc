"""What records take: what is counted is counted right; its times are nobody's promise."""

from __future__ import annotations

from rich.console import Console

from orchestrator.bench.made_records import Size
from orchestrator.bench.scale import scale


def test_rows_are_counted_and_a_second_start_writes_none() -> None:
    """By hand, of two sequences of two tasks of three steps each, and one of one task of five.

    A sequence's tasks have 2 x 3 x 4 points of steps, and the parent as many. Of scores there are 3 x 2 in the parent, and
    those after a task in its run: 2 x 2. Each of the three trained states has its cost in four numbers.
    """
    result = scale(Console(quiet=True), Size(sequences=2, tasks=2, steps=3), long_steps=5, proposals=3)
    assert (result["sequences"], result["tasks"], result["steps"], result["long_steps"]) == (2, 2, 3, 5)
    rows_of_summaries = result["metric_rows"] - 2 * (24 + 24 + 6 + 4 + 2 * 4)
    # aa after both tasks in the parent and in the tasks; the other averages are undefined or not after the first
    assert rows_of_summaries > 2 * 4
    assert rows_of_summaries % 2 == 0
    assert result["copy_again_writes"] is False
    assert result["views"] == 2
    assert result["proposals"] == 3
    assert {"report_s", "evaluate_s", "long_copy_again_s", "proposal_tpe_last_ms"} <= set(result)
