"""Ray Tune is told what the trial store decides at a rung."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from orchestrator.search.ray_tune import JournalledAsha
from tests.orchestrator.search.searches import open_search, search_config


def ask(scheduler: JournalledAsha, key: str, score: float, tasks: int = 2) -> str:
    """What becomes of a trial that has this score after so many tasks."""
    trial = SimpleNamespace(config={"trial": key})
    return scheduler.on_trial_result(None, trial, {"tasks": tasks, "score": score})


def test_a_trial_goes_on_if_it_is_among_the_best_half(tmp_path: Path) -> None:
    space = {"training.lr": [1e-4, 3e-4, 1e-3, 3e-3]}
    config = search_config(tmp_path, ["ft"], trials=4, scheduler="asha", reduction=2, space=space, at_once=1)
    _, trial_store = open_search(config)
    scheduler = JournalledAsha(trial_store)
    words = []
    for score in (50.0, 40.0, 60.0):
        trial = trial_store.start_next()
        assert trial
        words.append(ask(scheduler, trial.key, score))
        trial_store.record_result(trial, "not trained here")
    assert words == ["CONTINUE", "STOP", "CONTINUE"]
    last = trial_store.start_next()
    assert last
    assert ask(scheduler, last.key, 0.0, tasks=3) == "CONTINUE", "a trial that is through is finished, not stopped"


def test_no_expert_is_stopped(tmp_path: Path) -> None:
    """Each has one task, and rungs begin at two."""
    _, trial_store = open_search(search_config(tmp_path, ["expert"], trials=1, scheduler="asha"))
    trial = trial_store.start_next()
    assert trial
    assert ask(JournalledAsha(trial_store), trial.key, 0.0, tasks=1) == "CONTINUE"
