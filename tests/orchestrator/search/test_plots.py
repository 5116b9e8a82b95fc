"""Plots of a search's trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.search.plots import axis_heights, draw
from tests.orchestrator.search.searches import open_search, score_trials, search_config


def test_a_plot_for_each_method_and_pair_of_parameters(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft", "ft+migu", "zero-shot"]))
    score_trials(trial_store, {"ft": [41.0, 73.5], "ft+migu": [66.0, 58.0], "zero-shot": [20.0]})
    files = draw(trial_store, tmp_path)
    assert sorted(file.name for file in files) == [
        "contour-ft+migu-training.lr-migu.ratio.png",
        "parallel-ft+migu.png",
        "parallel-ft.png",
        "parallel-zero-shot.png",
    ]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_method_whose_trials_failed_has_no_plot(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"]))
    score_trials(trial_store, {"ft": ["the loss is nan", "the loss is nan"]})
    assert draw(trial_store, tmp_path) == []


def test_numbers_within_a_decade_are_spaced_evenly() -> None:
    assert axis_heights([4, 2, 3]) == {2: 0.0, 3: 0.5, 4: 1.0}


def test_numbers_over_more_than_a_decade_are_spaced_by_their_logarithm() -> None:
    heights = axis_heights([1e-1, 1e-5, 1e-4])
    assert heights == pytest.approx({1e-5: 0.0, 1e-4: 0.25, 1e-1: 1.0})


def test_words_are_spaced_evenly_and_one_value_is_in_the_middle() -> None:
    assert axis_heights(["b", "a", "c", "a"]) == {"a": 0.0, "b": 0.5, "c": 1.0}
    assert axis_heights([None, 3, None]) == {3: 0.0, None: 1.0}, "numbers come first"
    assert axis_heights([0.5, 0.5]) == {0.5: 0.5}
