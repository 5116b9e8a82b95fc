"""Halving over finished tasks: the rungs, who passes them, and a history for each method."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler

from orchestrator.config.search import SearchConfig
from orchestrator.search.decisions.halving import goes_on, rungs
from tests.orchestrator.search.searches import open_search, search_config, steady, write_scores


def settings(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate({"streams": ["embedded-tuning"], "scheduler": "asha", **changes})


def test_rungs_by_hand() -> None:
    assert rungs(settings(grace=2, reduction=3), 19) == [2, 6, 18]
    assert rungs(settings(grace=2, reduction=3), 18) == [2, 6], "the last task is no rung"
    assert rungs(settings(grace=2, reduction=1.2), 10) == [2, 3, 4, 5, 6, 8, 9]
    assert rungs(settings(grace=4), 4) == []
    assert rungs(settings(scheduler="fifo"), 19) == []


@pytest.mark.parametrize("reduction", [2.0, 3.0, 4.0])
def test_one_trial_at_a_time_is_halved_as_ray_does_it(reduction: float) -> None:
    scheduler = ASHAScheduler(
        time_attr="tasks", metric="score", mode="max", max_t=9, grace_period=2, reduction_factor=reduction
    )
    scores = np.random.default_rng(0).permutation(40).astype(float).tolist()
    words = []
    for number, score in enumerate(scores):
        trial: Any = SimpleNamespace(trial_id=str(number))
        controller: Any = None
        scheduler.on_trial_add(controller, trial)
        word = scheduler.on_trial_result(controller, trial, {"tasks": 2, "score": score})
        assert goes_on(settings(reduction=reduction), score, scores[:number]) == (word == "CONTINUE")
        words.append(word)
    assert words.count("STOP") > 10


def test_methods_are_not_halved_against_each_other(tmp_path: Path) -> None:
    """The first of a method goes on, far below the other's trials that ended before it."""
    config = search_config(tmp_path, scheduler="asha", reduction=2, at_once=1)
    _, trial_store = open_search(config)
    scores = {"ft-000": 90.0, "ft+migu-000": 20.0, "ft-001": 80.0, "ft+migu-001": 30.0}
    passed = {}
    while trial := trial_store.start_next():
        score = scores[trial.key]
        passed[trial.key] = trial_store.passes_rung(trial, 2, score)
        write_scores(trial.sequences[0], steady(score))
        trial_store.record_result(trial)
    assert passed == {"ft-000": True, "ft+migu-000": True, "ft-001": False, "ft+migu-001": True}
    result = trial_store.results["ft-001"]
    assert (result.status, result.tasks) == ("stopped", 2), "what its journal has beyond the rung does not count"


def test_trials_of_one_round_are_not_halved_against_each_other(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], scheduler="asha", reduction=2, at_once=2)
    _, trial_store = open_search(config)
    first = trial_store.start_next()
    second = trial_store.start_next()
    assert first
    assert second
    assert trial_store.passes_rung(second, 2, 90.0)
    assert trial_store.passes_rung(first, 2, 10.0)
