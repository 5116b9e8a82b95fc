"""The tables beside the main one: there where there is something to say."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from orchestrator.evaluation.curves.lifelong import LIFELONG
from orchestrator.report.curves.tables import print_curves
from tests.orchestrator.report.curves.examples import POINTS, looked_at
from tests.orchestrator.report.examples import result_of


def printed(*results: dict[str, Any]) -> str:
    screen = io.StringIO()
    print_curves(results, Console(file=screen, width=240))
    return screen.getvalue()


def line_of(text: str, beginning: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(beginning)]
    return line.split()


def test_without_any_of_it_nothing_is_printed() -> None:
    assert printed(result_of()) == ""


def test_means_over_the_seeds() -> None:
    text = printed(looked_at(), looked_at(seed=2, min_acc=30.0, seconds_of_looks=6.0), looked_at(method="ft+migu"))
    assert "news: amid training" in text
    assert line_of(text, "method") == ["method", "min-ACC", "↑", "WC-ACC", "↑", "WF(10)", "↓", "WP(10)", "↑", "looks"]
    assert line_of(text, "ft ")[:4] == ["ft", "25.0", "±", "7.1"]
    assert line_of(text, "ft ")[-2:] == ["5.0", "s"]
    assert line_of(text, "ft+migu") == ["ft+migu", "20.0", "50.0", "35.0", "77.5", "4.0", "s"]
    assert "WF(10) mean of the deepest fall" in text
    assert "no points of some tasks" not in text


def test_a_run_whose_task_was_found_without_points_is_told_so() -> None:
    none = dict.fromkeys(("min_acc", "wc_acc", "wf", "wp"))
    text = printed(looked_at(points=POINTS[2:], **none))
    assert line_of(text, "ft ") == ["ft", "–", "–", "–", "–", "4.0", "s"]
    assert "ft: no points of some tasks" in text
    # what runs still, and what makes no steps, lacks nothing
    assert "no points" not in printed(looked_at(points=[], status="running", **none))
    assert "no points" not in printed(looked_at(points=[], steps=0, **none))


def test_beside_experts_those_metrics_that_are_known() -> None:
    values: dict[str, Any] = dict.fromkeys(LIFELONG)
    values |= {"performance_maintenance": -20.0, "backward_transfer_contrast": -0.125, "lifelong_beside": "expert"}
    text = printed(result_of(**values))
    assert "news: beside expert" in text
    assert line_of(text, "method") == ["method", "PM", "↑", "BT", "↑"]
    assert line_of(text, "ft ") == ["ft", "-20.00", "-0.12"]
    assert "amid training" not in text


def test_a_reference_run_has_no_line() -> None:
    text = printed(looked_at(), looked_at(method="expert", reference="expert"))
    assert "\n expert" not in text


def test_fuar_is_a_number_or_no_gain() -> None:
    text = printed(result_of(fuar=0.5), result_of(fuar=1.0, seed=2), result_of(fuar="no gain", seed=3))
    assert "FUAR ↓ of ft: 0.75 ± 0.35, no gain in 1 of 3 runs" in text
    assert "of ft: no gain in 1 of 1 runs" in printed(result_of(fuar="no gain"))
    assert "of ft: – (" in printed(result_of(fuar=None))
