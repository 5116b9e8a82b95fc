"""The trials of a search on the screen while they run."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from orchestrator.search.screen import SearchScreen, show_values, tasks_trained
from orchestrator.search.trial_store import TrialStore
from tests.orchestrator.search.searches import open_search, score_trial, search_config, steady, view_of, write_scores

RATES = {"training.lr": [1e-4, 3e-4, 1e-3, 3e-3]}


def four_trials(out: Path) -> TrialStore:
    """One of each kind: finished with 41, the best with 73.5, stopped after two tasks, and one that runs its second task."""
    _, trial_store = open_search(search_config(out, ["ft"], trials=4, space=RATES))
    for outcome in (41.0, 73.5, steady(55.0)[:3]):
        trial = trial_store.start_next()
        assert trial
        score_trial(trial_store, trial, outcome)
    running = trial_store.start_next()
    assert running
    write_scores(running.sequences[0], steady(20.0)[:2])
    return trial_store


def test_on_a_terminal_a_table(tmp_path: Path) -> None:
    trial_store = four_trials(tmp_path)
    terminal = Console(width=120, height=40, force_terminal=True, file=StringIO())
    screen = SearchScreen(trial_store, "nothing overlaps", terminal)
    screen.show()
    plain = Console(width=120, file=StringIO())
    with plain.capture() as captured:
        plain.print(screen.table())
    lines = captured.get().splitlines()
    assert lines[0].startswith("nothing overlaps")
    assert lines[1].startswith("3 of 4 trials, 8 of 8 tasks trained, the rest shared")
    best, first, stopped, running = (line for line in lines if line.startswith("ft-00"))
    assert best.startswith("ft-001")
    assert "73.5" in best
    assert best.rstrip().endswith("← best")
    assert first.startswith("ft-000")
    assert "41.0" in first
    assert "55.0, stopped after 2 tasks" in stopped
    assert running.startswith("ft-003")
    assert running.rstrip().endswith("task 2/3")


def test_elsewhere_a_line_for_each_trial_that_ended(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"], trials=3))
    first = trial_store.start_next()
    assert first
    score_trial(trial_store, first, 41.0)
    console = Console(width=120, file=StringIO())
    with console.capture() as captured:
        screen = SearchScreen(trial_store, "nothing overlaps", console)
        screen.show()
        second = trial_store.start_next()
        assert second
        score_trial(trial_store, second, "the loss is nan")
        screen.show()
        screen.show()
    lines = captured.get().splitlines()
    rate = f"lr {second.values['training.lr']:g}"
    assert lines == [
        "nothing overlaps",
        "ft: its space holds 2 of the 3 trials",
        f"00:00 ft-001 ({rate}): failed: the loss is nan",
    ], "what ended before is not said again, nor twice"


def test_tasks_trained_are_those_of_the_slowest(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"], seeds=[1, 2]))
    trial = trial_store.start_next()
    assert trial
    ahead = view_of(trial.sequences[0], steady(20.0))
    behind = view_of(trial.sequences[1], steady(20.0)[:2])
    assert tasks_trained([ahead, behind]) == 1
    assert tasks_trained([ahead]) == 3


def test_values_in_a_line() -> None:
    assert show_values({"training.lr": 0.0030, "lora.r": 8, "migu.cluster": None}) == "lr 0.003, r 8, cluster None"
    assert show_values({"training.lrs.head": 1e-5}) == "lrs.head 1e-05"
    assert show_values({}) == "nothing to choose"
