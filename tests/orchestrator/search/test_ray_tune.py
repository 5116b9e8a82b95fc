"""Halving over finished tasks: the rungs, and a bracket for each method."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.config.search import SearchConfig
from orchestrator.search.ray_tune import PerMethodAsha, rungs
from tests.orchestrator.search.searches import Matrix, open_search, score_trials, search_config, write_scores

# After two tasks 75, after all three 60: what counts at the rung is the former.
BETTER_EARLY: Matrix = [[10, 10, 10], [80, 20, 10], [60, 90, 20], [50, 70, 60]]


def settings(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate({"streams": ["embedded-tuning"], "scheduler": "asha", **changes})


def ask(scheduler: PerMethodAsha, method: str, name: str, score: float, tasks: int = 2) -> str:
    """What becomes of a new trial that has this score after so many tasks."""
    trial = SimpleNamespace(trial_id=name, config={"method": method, "trial": name})
    scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"tasks": tasks, "score": score})


def test_rungs_by_hand() -> None:
    assert rungs(settings(grace=2, reduction=3), 19) == [2, 6, 18]
    assert rungs(settings(grace=2, reduction=3), 18) == [2, 6], "the last task is no rung"
    assert rungs(settings(grace=2, reduction=1.2), 10) == [2, 3, 4, 5, 6, 8, 9]
    assert rungs(settings(grace=4), 4) == []
    assert rungs(settings(scheduler="fifo"), 19) == []


def test_a_trial_goes_on_if_it_is_among_the_best_half(tmp_path: Path) -> None:
    space = {"training.lr": [1e-4, 3e-4, 1e-3, 3e-3]}
    config = search_config(tmp_path, ["ft"], trials=4, scheduler="asha", reduction=2, space=space)
    _, trial_store = open_search(config)
    assert trial_store.start_next()
    scheduler = PerMethodAsha(trial_store)
    assert ask(scheduler, "ft", "first", 50.0) == "CONTINUE"
    assert ask(scheduler, "ft", "worse", 40.0) == "STOP"
    assert ask(scheduler, "ft", "better", 60.0) == "CONTINUE"
    assert ask(scheduler, "ft", "last", 0.0, tasks=3) == "CONTINUE", "a trial that is through is finished, not stopped"


def test_the_trial_store_is_told_which_trials_the_scheduler_stopped(tmp_path: Path) -> None:
    """Two that ended after two of three tasks: one was stopped there, of the other the driver just returned."""
    config = search_config(tmp_path, ["ft"], scheduler="asha", reduction=2)
    _, trial_store = open_search(config)
    first = trial_store.start_next()
    second = trial_store.start_next()
    assert first and second
    scheduler = PerMethodAsha(trial_store)
    assert ask(scheduler, "ft", first.key, 75.0) == "CONTINUE"
    assert ask(scheduler, "ft", second.key, 70.0) == "STOP"
    for trial in (first, second):
        write_scores(trial.sequences[0], BETTER_EARLY[:3])
        trial_store.record_result(trial)
    assert trial_store.results[first.key].status == "failed"
    assert trial_store.results[first.key].reason == "its driver ended without a word after 2 of 3 tasks"
    assert (trial_store.results[second.key].status, trial_store.results[second.key].score) == ("stopped", 75.0)


def test_methods_are_not_halved_against_each_other(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, scheduler="asha", reduction=2))
    assert trial_store.start_next()
    assert trial_store.start_next()
    scheduler = PerMethodAsha(trial_store)
    assert ask(scheduler, "ft", "a", 90.0) == "CONTINUE"
    assert ask(scheduler, "ft", "b", 80.0) == "STOP"
    assert ask(scheduler, "ft+migu", "c", 20.0) == "CONTINUE", "the first of its method, far below the other's"
    assert ask(scheduler, "ft+migu", "d", 10.0) == "STOP"


@pytest.mark.parametrize(("score", "word"), [(74.0, "STOP"), (76.0, "CONTINUE")])
def test_what_earlier_trials_reached_at_the_rung_counts_again(tmp_path: Path, score: float, word: str) -> None:
    space = {"training.lr": [1e-4, 3e-4, 1e-3]}
    config = search_config(tmp_path, ["ft"], trials=3, scheduler="asha", reduction=2, space=space)
    _, trial_store = open_search(config)
    score_trials(trial_store, {"ft": [BETTER_EARLY, BETTER_EARLY[:3], "the loss is nan"]})
    assert [result.status for result in trial_store.results.values()] == ["finished", "stopped", "failed"]
    assert ask(PerMethodAsha(trial_store), "ft", "new", score) == word


def test_no_expert_is_stopped(tmp_path: Path) -> None:
    """Each has one task, and rungs begin at two."""
    _, trial_store = open_search(search_config(tmp_path, ["expert"], trials=1, scheduler="asha"))
    assert trial_store.start_next()
    scheduler = PerMethodAsha(trial_store)
    trial = SimpleNamespace(trial_id="one", config={"method": "expert"})
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {"tasks": 1, "score": 0.0}) == "CONTINUE"
    scheduler.on_trial_remove(None, trial)
    assert scheduler.brackets == {}
