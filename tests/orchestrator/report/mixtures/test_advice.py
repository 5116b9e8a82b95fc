"""What a user is told of shares."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestrator.report.mixtures import advice as module
from orchestrator.report.mixtures.advice import advise, print_advice
from orchestrator.report.mixtures.law import Point
from tests.orchestrator.report.mixtures.test_law import POINTS, planted


def advised(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[dict[str, Any], str]:
    """The advice on runs that follow the planted law, with the general task's loss by the rest's share; and its words."""

    def points(experiments: Any, task: str, scored: str) -> list[Point]:
        if scored == task:
            return POINTS
        return [Point(point.tokens, 1 - point.ratio, planted(point.tokens, 1 - point.ratio)) for point in POINTS]

    monkeypatch.setattr(module, "mixture_points", points)
    asked: dict[str, Any] = {"general": None, "most": float("inf"), "tokens": None, **changes}
    found = advise([], "law", **asked)
    console = Console(width=200, record=True, file=io.StringIO())
    print_advice(found, console)
    return found, console.export_text()


def test_the_share_is_said_with_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    found, text = advised(monkeypatch, tokens=3e6)
    assert found["loss"] == pytest.approx(planted(3e6, found["ratio"]), rel=2e-3)
    assert f"best share of law: {found['ratio']:.2f} after 3e+06 tokens, with a loss of {found['loss']:g}" in text
    assert "shares from 0.1 to 0.9 were tried" in text and "R^2 of 1.00 on runs that were left out, of 15" in text
    assert advised(monkeypatch)[0]["tokens"] == 5e6, "the largest run's"


def test_a_limit_of_the_general_loss_moves_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    free, _ = advised(monkeypatch, general="web", tokens=3e6)
    # at the share that is best for the task alone the rest's loss is this
    limit = free["general_loss"] - 0.01
    bound, text = advised(monkeypatch, general="web", tokens=3e6, most=limit)
    assert bound["ratio"] != free["ratio"]
    assert bound["general_loss"] <= limit and bound["loss"] >= free["loss"]
    assert f"and of {bound['general_loss']:g} on web" in text
    assert bound["general_loss"] == pytest.approx(planted(3e6, 1 - bound["ratio"]), rel=2e-3)


def test_a_law_that_predicts_badly_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = advised(monkeypatch)
    console = Console(width=200, record=True, file=io.StringIO())
    print_advice({**found, "law": {**found["law"], "held_out_r2": 0.4}}, console)
    assert "R^2 of 0.40 on runs that were left out, of 15: the law predicts badly" in console.export_text()
