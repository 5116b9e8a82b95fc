"""Metrics of what a journal says, over all tasks and over those of each scorer."""

from __future__ import annotations

import math

import pytest

from methods.reference_runs import SEQUENTIAL
from orchestrator.evaluation.view_metrics import scorers_of, summaries_of, summary_of
from orchestrator.store.view import View
from tests.orchestrator.store.examples import score, started

MATRIX = [[50.0, 10.0], [4.0, 20.0], [6.0, 80.0]]


def view_of(*scorers: str) -> View:
    view = View("s")
    begun = started("0", "1")
    view.add(begun.model_copy(update={"sequence": {"scorers": list(scorers)} if scorers else {}}))
    for tasks_seen, scores in enumerate(MATRIX):
        for task_id, number in enumerate(scores):
            view.add(score(tasks_seen, task_id, number))
    return view


def test_journals_of_before_there_were_several_scorers_have_the_default() -> None:
    assert scorers_of(view_of()) == ("exact-match", "exact-match")
    assert scorers_of(View("s")) == ()
    assert scorers_of(view_of("sari", "numeric")) == ("sari", "numeric")


def test_the_direction_is_the_scorers() -> None:
    higher = summary_of(view_of(), SEQUENTIAL)
    assert (higher["aa"], higher["forgetting"]) == (43.0, 4 - 6)
    lower = summary_of(view_of("perplexity", "perplexity"), SEQUENTIAL)
    assert (lower["aa"], lower["forgetting"]) == (43.0, 6 - 4)
    assert summary_of(view_of("perplexity", "perplexity"), SEQUENTIAL, 1)["aa"] == 4.0


def test_several_scorers_have_their_own_metrics_and_a_mean_where_they_have_one_unit() -> None:
    mixed = summaries_of(view_of("perplexity", "exact-match"), SEQUENTIAL)
    assert math.isnan(mixed["aa"])
    assert (mixed["aa/perplexity"], mixed["aa/exact-match"]) == (6.0, 80.0)
    assert (mixed["forgetting/perplexity"], mixed["bwt/perplexity"]) == (6 - 4, 4 - 6)
    assert math.isnan(mixed["forgetting/exact-match"]), "the last task has had no time to be forgotten"
    alike = summaries_of(view_of("sari", "exact-match"), SEQUENTIAL)
    assert (alike["aa"], alike["aa/sari"]) == (pytest.approx(43.0), 6.0)
    assert "aa/exact-match" not in summaries_of(view_of(), SEQUENTIAL)
