"""A trial's metrics, score, cost and end, from journals that are written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.experiment import RunConfig
from orchestrator.search.trials import Trial, cost_of, metrics_after, score_after, score_of, tasks_done, trial_result
from tests.orchestrator.search.searches import (
    Matrix,
    open_search,
    score_trial,
    search_config,
    steady,
    view_of,
    write_scores,
)

# Rows: before training, then after each of three tasks.
FORGETFUL: Matrix = [[10, 10, 10], [80, 20, 10], [60, 90, 20], [50, 70, 60]]


def one_trial(config: RunConfig) -> Trial:
    _, trial_store = open_search(config)
    trial = trial_store.start_next()
    assert trial
    return trial


def test_metrics_by_hand(tmp_path: Path) -> None:
    trial = one_trial(search_config(tmp_path, ["ft"]))
    view = view_of(trial.sequences[0], FORGETFUL)
    whole = metrics_after([view], 3)
    assert whole["aa"] == pytest.approx((50 + 70 + 60) / 3)
    assert whole["forgetting"] == pytest.approx(((80 - 50) + (90 - 70)) / 2)
    assert whole["bwt"] == pytest.approx(((50 - 80) + (70 - 90)) / 2)
    early = metrics_after([view], 2)
    assert early["aa"] == pytest.approx((60 + 90) / 2), "over the first two tasks alone"
    assert early["forgetting"] == pytest.approx(80 - 60)
    assert metrics_after([view], 1)["forgetting"] is None


def test_metrics_are_means_over_all_sequences(tmp_path: Path) -> None:
    """Not those of the first one, nor of the last."""
    trial = one_trial(search_config(tmp_path, ["ft"], seeds=[1, 2, 3]))
    matrices = (steady(20.0), steady(50.0), steady(65.0))
    views = [view_of(sequence, matrix) for sequence, matrix in zip(trial.sequences, matrices, strict=True)]
    assert metrics_after(views, 3)["aa"] == pytest.approx((20 + 50 + 65) / 3)
    assert metrics_after(views[::-1], 3)["aa"] == pytest.approx(45.0)


def test_accuracy_among_options_is_its_own_metric(tmp_path: Path) -> None:
    trial = one_trial(search_config(tmp_path, ["ft"], seeds=[1, 2]))
    first = view_of(trial.sequences[0], steady(20.0), options=FORGETFUL)
    assert metrics_after([first], 3)["aa_options"] == pytest.approx(60.0)
    assert metrics_after([first], 2)["aa_options"] == pytest.approx(75.0)
    without = view_of(trial.sequences[1], steady(20.0))
    assert metrics_after([first, without], 3)["aa_options"] is None, "what one sequence lacks is none of the trial's"


def test_a_reference_run_has_no_metric_of_learning_or_forgetting(tmp_path: Path) -> None:
    trial = one_trial(search_config(tmp_path, ["joint"]))
    values = metrics_after([view_of(trial.sequences[0], FORGETFUL)], 3)
    assert values["aa"] == pytest.approx(60.0)
    assert values["forgetting"] is values["bwt"] is values["fwt"] is values["learning_accuracy"] is None
    assert score_of(values, "aa", forgetting_weight=2.0) == pytest.approx(60.0)


def test_forgetting_lowers_the_score() -> None:
    values = {"aa": 60.0, "aa_options": None, "forgetting": 25.0, "forgetting_options": 3.0}
    assert score_of(values, "aa", forgetting_weight=0.0) == 60.0
    assert score_of(values, "aa", forgetting_weight=0.5) == 60.0 - 0.5 * 25.0
    assert score_of(values | {"forgetting": -10.0}, "aa", forgetting_weight=0.5) == 65.0, "a task that got better"
    assert score_of(values | {"forgetting": None}, "aa", forgetting_weight=0.5) == 60.0
    assert score_of(values, "aa_options", forgetting_weight=0.5) is None


def test_the_score_is_by_the_metric_that_the_search_names(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], forgetting_weight=0.1)
    assert config.search
    view = view_of(one_trial(config).sequences[0], FORGETFUL, options=steady(33.0))
    assert score_after(config.search, [view], 3) == pytest.approx(60 - 0.1 * 25)
    by_options = config.search.model_copy(update={"metric": "aa_options"})
    assert score_after(by_options, [view], 3) == pytest.approx(33.0), "nothing is forgotten among the options"


def test_what_is_forgotten_counts_in_the_scores_that_the_metric_is_a_mean_of(tmp_path: Path) -> None:
    """The whole label set forgets 90 points, the task's own options 9 and 1 of them."""
    config = search_config(tmp_path, ["ft"], forgetting_weight=0.5)
    assert config.search
    whole: Matrix = [[0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 90]]
    options: Matrix = [[50, 50, 50], [99, 50, 50], [95, 96, 50], [90, 95, 99]]
    view = view_of(one_trial(config).sequences[0], whole, options=options)
    by_options = config.search.model_copy(update={"metric": "aa_options"})
    assert score_after(by_options, [view], 3) == pytest.approx((90 + 95 + 99) / 3 - 0.5 * (9 + 1) / 2)
    assert score_after(config.search, [view], 3) == pytest.approx(30 - 0.5 * 90)


def test_a_metric_that_does_not_apply_is_said(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"])
    assert config.search
    trial = one_trial(config)
    write_scores(trial.sequences[0], steady(20.0))
    by_options = config.search.model_copy(update={"metric": "aa_options"})
    with pytest.raises(ValueError, match="aa_options does not apply"):
        score_after(by_options, trial.views(), 3)
    assert trial_result(trial, by_options, 1, 0.0).status == "failed"


def test_tasks_done_are_those_of_the_slowest_sequence_up_to_a_gap(tmp_path: Path) -> None:
    trial = one_trial(search_config(tmp_path, ["ft"], seeds=[1, 2]))
    ahead = view_of(trial.sequences[0], steady(20.0))
    behind = view_of(trial.sequences[1], steady(20.0)[:2])
    assert tasks_done([ahead, behind]) == 1
    assert tasks_done([ahead]) == 3
    del ahead.scores[2, 1]
    assert tasks_done([ahead]) == 1, "what comes after the missing score does not count"


def test_the_cost_leaves_out_what_was_reused(tmp_path: Path) -> None:
    trial = one_trial(search_config(tmp_path, ["ft"], seeds=[1, 2]))
    views = [
        view_of(trial.sequences[0], steady(20.0), seconds=4.0, reused=[0, 1]),
        view_of(trial.sequences[1], steady(20.0), seconds=1.5),
    ]
    cost = cost_of(views, workers=2, gpus=0.5)
    assert (cost.tasks, cost.trained) == (6, 4)
    assert cost.seconds == 4.0 + 3 * 1.5
    assert cost.gpu_seconds == cost.seconds * 2 * 0.5


def test_how_a_trial_ends(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], trials=4, space={"training.lr": [1e-4, 3e-4, 1e-3, 3e-3]})
    _, trial_store = open_search(config)
    results = []
    for outcome in (FORGETFUL, FORGETFUL[:3], "loss is nan in task 2", FORGETFUL[:1]):
        trial = trial_store.start_next()
        assert trial
        results.append(score_trial(trial_store, trial, outcome))
    finished, stopped, failed, not_begun = results
    assert (finished.status, finished.tasks, finished.score) == ("finished", 3, 60.0)
    assert (stopped.status, stopped.tasks, stopped.score) == ("stopped", 2, 75.0)
    assert (failed.status, failed.score, failed.reason) == ("failed", None, "loss is nan in task 2")
    assert not_begun.status == "failed"
    assert not_begun.reason == "it ended before its first task was done"


def test_machinery_that_failed_around_a_whole_trial_does_not_fail_it(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], seeds=[1])
    assert config.search
    trial = one_trial(config)
    write_scores(trial.sequences[0], FORGETFUL[:3])
    part = trial_result(trial, config.search, 1, 0.0, problem="its process died")
    assert (part.status, part.reason) == ("failed", "its process died")
    silent = trial_result(trial, config.search, 1, 0.0)
    assert (silent.status, silent.reason) == ("failed", "its driver ended without a word after 2 of 3 tasks")
    assert (silent.score, silent.metrics, silent.cost.tasks) == (None, {}, 2)
    stopped = trial_result(trial, config.search, 1, 0.0, stopped_after=2)
    assert (stopped.status, stopped.score, stopped.reason) == ("stopped", 75.0, "")
    write_scores(trial.sequences[0], FORGETFUL)
    whole = trial_result(trial, config.search, 1, 0.0, problem="its process died")
    assert (whole.status, whole.reason) == ("finished", "")


def test_where_a_lower_score_is_better_the_search_maximises_its_negative(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], forgetting_weight=0.5, scorer="perplexity")
    assert config.search
    trial = one_trial(config)
    rising: Matrix = [[90, 90, 90], [5, 80, 80], [7, 4, 70], [9, 4, 2]]
    view = view_of(trial.sequences[0], rising)
    # the first task rose by 4, the second stayed
    assert score_after(config.search, [view], 3) == pytest.approx(-(9 + 4 + 2) / 3 - 0.5 * (4 + 0) / 2)
    assert trial.measure.unit == "perplexity"
    assert score_of({"aa": 5.0, "forgetting": 2.0}, "aa", 1.0, "lower") == -5.0 - 2.0
