"""Results with scores amid training, made up for tests of what is printed and written of them."""

from __future__ import annotations

from typing import Any

from tests.orchestrator.report.examples import result_of

# (task, step, scored task, score, examples, seconds): the first task falls to 20 amid the second, and is back at 70
POINTS = [
    [0, 0, 0, 10.0, 8, 0.5],
    [0, 2, 0, 90.0, 8, 0.5],
    [1, 0, 0, 90.0, 8, 0.5],
    [1, 0, 1, 5.0, 8, 0.5],
    [1, 1, 0, 20.0, 8, 0.5],
    [1, 1, 1, 30.0, 8, 0.5],
    [1, 3, 0, 70.0, 8, 0.5],
    [1, 3, 1, 80.0, 8, 0.5],
]


def looked_at(**changes: Any) -> dict[str, Any]:
    """A finished sequence of two tasks with those points and their metrics."""
    metrics = {"min_acc": 20.0, "wc_acc": 50.0, "wf": 35.0, "wp": 77.5}
    return result_of(**{"points": POINTS, "window": 10, "seconds_of_looks": 4.0, **metrics, **changes})
