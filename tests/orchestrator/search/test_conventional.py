"""Which search is the conventional form of one that holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.conventional import is_conventional_form
from tests.orchestrator.search.searches import EVALUATION, TUNING, search_config

USUAL: dict[str, Any] = {"holdout": "none", "streams": [{**EVALUATION, "max_dev": 12}]}


def asked_for(out: Path, **search: Any) -> dict[str, Any]:
    return search_config(out, **search).model_dump(mode="json")


def test_it_is_the_same_search_tuned_on_the_evaluation_streams(tmp_path: Path) -> None:
    usual = asked_for(tmp_path, **USUAL)
    assert is_conventional_form({**usual, "name": "usual"}, asked_for(tmp_path))
    assert is_conventional_form(usual, asked_for(tmp_path, holdout="labels"))


@pytest.mark.parametrize(
    "changes",
    [
        {"holdout": "labels"},
        {"streams": [TUNING]},
        {"streams": [{**EVALUATION, "max_train": 16}]},
        {"trials": 1},
        {"forgetting_weight": 0.5},
        {"seeds": [2]},
        {"methods": ["ft"]},
        {"training": {"epochs": 2}},
    ],
)
def test_another_search_is_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    """One with another budget, measure, method or training has other reasons to score more."""
    assert not is_conventional_form(asked_for(tmp_path, **{**USUAL, **changes}), asked_for(tmp_path))


def test_a_search_that_holds_nothing_out_has_none(tmp_path: Path) -> None:
    usual = asked_for(tmp_path, **USUAL)
    assert not is_conventional_form({**usual, "name": "usual"}, usual)
