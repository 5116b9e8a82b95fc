"""Metrics against logged matrices of a public repository, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from methods import REFERENCE_RUNS
from orchestrator.evaluation import metrics
from orchestrator.evaluation.measure import Measure

# From the checked-in logs of the O-LoRA repository: exact match after each task (rows) on each task (columns), in %, and
# the test sizes of its long sequence. What the metrics must give stands beside them.
ORDER1_SEQFT = [
    [97.0132, None, None, None],
    [89.1053, 55.25, None, None],
    [74.7632, 53.4474, 72.2763, None],
    [79.5263, 52.6711, 48.8421, 90.0263],
]


def test_a_logged_matrix() -> None:
    acc = metrics.as_matrix(ORDER1_SEQFT)
    assert metrics.average_accuracy(acc) == pytest.approx(67.77, abs=0.01)
    assert metrics.backward_transfer(acc) == pytest.approx(-14.50, abs=0.01)
    # every task was at its best right after it was learnt, so forgetting is BWT without its sign
    assert metrics.forgetting(acc) == pytest.approx(14.50, abs=0.01)
    assert metrics.micro_average_accuracy(acc, [7600] * 4) == pytest.approx(67.7664, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "aa", "bwt"),
    [
        ("order1_seqft", 67.77, -14.50),
        ("order1_icrlora", 68.62, -14.55),
        ("order1_olora", 78.37, -1.18),
        ("long_olora", 72.17, -0.73),
        ("long_icrlora", 58.44, -19.44),
        ("long_seqlora", 32.04, -47.96),
    ],
)
def test_golden_matrices(
    name: str, aa: float, bwt: float, golden: dict[str, dict[str, list[list[float | None]]]]
) -> None:
    acc = metrics.as_matrix(golden[name]["exact_match"])
    assert metrics.average_accuracy(acc) == pytest.approx(aa, abs=0.006)
    assert metrics.backward_transfer(acc) == pytest.approx(bwt, abs=0.006)


def test_micro_average_of_the_long_stream(golden: dict[str, dict[str, list[list[float | None]]]]) -> None:
    entry = golden["long_olora"]
    sizes = {"yelp": 7600, "amazon": 7600, "MNLI": 7600, "CB": 56, "COPA": 100, "QQP": 7600, "RTE": 277, "IMDB": 7600,
             "SST-2": 872, "dbpedia": 7600, "agnews": 7600, "yahoo": 7600, "MultiRC": 4848, "BoolQA": 3270,
             "WiC": 638}  # fmt: skip
    micro = metrics.micro_average_accuracy(metrics.as_matrix(entry["exact_match"]), [sizes[t] for t in entry["tasks"]])
    assert micro == pytest.approx(73.8813, abs=0.01)


FULL = np.array([[10.0, 20.0, 30.0], [90.0, 25.0, 35.0], [60.0, 80.0, 40.0], [70.0, 50.0, 100.0]])


def test_by_hand() -> None:
    values = metrics.summary(FULL, [1, 1, 2])
    assert values["aa"] == pytest.approx((70 + 50 + 100) / 3)
    assert values["micro_aa"] == pytest.approx((70 + 50 + 200) / 4)
    assert values["bwt"] == pytest.approx(((70 - 90) + (50 - 80)) / 2)
    assert values["forgetting"] == pytest.approx(((90 - 70) + (80 - 50)) / 2)
    assert values["learning_accuracy"] == pytest.approx((90 + 80 + 100) / 3)
    assert values["fwt"] == pytest.approx(((25 - 20) + (40 - 30)) / 2)
    assert values["average_incremental_accuracy"] == pytest.approx((90 + (60 + 80) / 2 + (70 + 50 + 100) / 3) / 3)


def test_the_last_row_is_no_best_score() -> None:
    """A task that is best at the end is forgotten by less than nothing: the maximum is over the states before."""
    rising = np.array([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0], [55.0, 30.0, 0.0], [70.0, 90.0, 50.0]])
    values = metrics.summary(rising, [1, 1, 1])
    assert values["forgetting"] == pytest.approx(((55 - 70) + (30 - 90)) / 2)
    assert values["bwt"] == pytest.approx(((70 - 40) + (90 - 30)) / 2)


def test_the_best_score_of_a_task_may_lie_between_its_own_turn_and_the_end() -> None:
    full = np.array([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0], [65.0, 30.0, 0.0], [50.0, 20.0, 90.0]])
    values = metrics.summary(full, [1, 1, 1])
    assert values["forgetting"] == pytest.approx(((65 - 50) + (30 - 20)) / 2)
    assert values["bwt"] == pytest.approx(((50 - 40) + (20 - 30)) / 2)


def test_intransigence_is_what_a_task_lacks_to_the_reference_run() -> None:
    reference = np.array([95.0, 70.0, 100.0])
    # learnt: 90, 80, 100
    assert metrics.summary(FULL, [1, 1, 2], reference_T=reference)["intransigence"] == pytest.approx((5 - 10 + 0) / 3)
    early = metrics.summary(FULL, [1, 1, 2], num_tasks=2, reference_T=reference)
    assert early["intransigence"] == pytest.approx((5 - 10) / 2)
    assert math.isnan(metrics.summary(FULL, [1, 1, 2])["intransigence"])


def test_the_initial_model_is_no_best_score() -> None:
    """A task that was best before any training has not been learnt and then forgotten."""
    full = np.array([[100.0, 0.0], [50.0, 0.0], [40.0, 10.0]])
    assert metrics.summary(full, [1, 1])["forgetting"] == pytest.approx(10.0)


def test_after_some_tasks_and_for_one_task() -> None:
    values = metrics.summary(FULL, [1, 1, 2], num_tasks=2)
    assert values["aa"] == pytest.approx(70.0)
    assert values["bwt"] == pytest.approx(-30.0)
    single = metrics.summary(FULL, [1, 1, 2], num_tasks=1)
    assert single["aa"] == 90.0
    assert math.isnan(single["bwt"])
    assert math.isnan(single["forgetting"])
    assert math.isnan(single["fwt"])


def test_a_reference_run_has_the_metrics_that_need_no_sequence() -> None:
    for reference in REFERENCE_RUNS.values():
        assert set(metrics.summary(FULL, [1, 1, 2], kind=reference)) == {"aa", "aa_options", "micro_aa"}
    assert set(metrics.summary(FULL, [1, 1, 2])) == set(metrics.METRICS)


def test_scores_among_options_are_averaged_like_all_others() -> None:
    values = metrics.summary(np.zeros_like(FULL), [1, 1, 2], FULL, num_tasks=2)
    assert (values["aa"], values["aa_options"]) == (0.0, 70.0)
    assert (values["forgetting"], values["forgetting_options"]) == (0.0, 30.0)
    assert math.isnan(metrics.summary(FULL, [1, 1, 2])["aa_options"])


def test_what_was_not_measured_is_nan() -> None:
    assert np.isnan(metrics.as_matrix([[None, 1.0]])).tolist() == [[True, False]]
    partly = FULL.copy()
    partly[3, 0] = np.nan
    values = metrics.summary(partly, [1, 1, 2])
    assert math.isnan(values["aa"])
    assert values["learning_accuracy"] == pytest.approx((90 + 80 + 100) / 3)


def test_without_the_scores_before_a_tasks_turn_only_forward_transfer_is_unknown() -> None:
    """The second task was at its best (95) before it was trained: forgetting counts from its turn on."""
    full = np.array([[10.0, 20.0, 30.0], [90.0, 95.0, 35.0], [60.0, 80.0, 40.0], [70.0, 50.0, 100.0]])
    seen = full.copy()
    seen[np.triu_indices(3)] = np.nan
    assert np.isnan(seen).sum() == 6
    of_all = metrics.summary(full, [1, 1, 2], reference_T=np.array([95.0, 70.0, 100.0]))
    values = metrics.summary(seen, [1, 1, 2], reference_T=np.array([95.0, 70.0, 100.0]))
    assert of_all["forgetting"] == pytest.approx(((90 - 70) + (95 - 50)) / 2)
    assert values["forgetting"] == pytest.approx(((90 - 70) + (80 - 50)) / 2)
    assert math.isnan(values["fwt"])
    for name in set(of_all) - {"forgetting", "fwt", "aa_options", "forgetting_options"}:
        assert values[name] == of_all[name], name


def test_the_registry_says_which_direction_is_better() -> None:
    worse = [metric.name for metric in metrics.METRICS.values() if metric.better() == "lower"]
    assert worse == ["forgetting", "forgetting_options", "intransigence"]
    assert metrics.METRICS["forgetting"].heading() == "forget. ↓"
    assert metrics.METRICS["aa"].heading() == "AA ↑"
    for name, metric in metrics.METRICS.items():
        assert name == metric.name
        assert metric.unit() in ("%", "points")
    # what a search may maximise is lowered by forgetting in the very same scores
    forgetting = {metric.name: metric.forgetting for metric in metrics.METRICS.values() if metric.forgetting}
    assert forgetting == {"aa": "forgetting", "aa_options": "forgetting_options"}


LOWER = Measure("perplexity", "lower", 2)


def test_where_a_lower_score_is_better_forgetting_is_the_rise() -> None:
    """Perplexities: the first task falls to 3 and rises to 6, the second falls to 4 and then to 2."""
    full = np.array([[50.0, 40.0, 30.0], [3.0, 20.0, 25.0], [5.0, 4.0, 10.0], [6.0, 2.0, 8.0]])
    values = metrics.summary(full, [1, 1, 2], reference_T=np.array([2.0, 5.0, 8.0]), measure=LOWER)
    # means of scores are scores
    assert values["aa"] == pytest.approx((6 + 2 + 8) / 3)
    assert values["micro_aa"] == pytest.approx((6 + 2 + 16) / 4)
    assert values["learning_accuracy"] == pytest.approx((3 + 4 + 8) / 3)
    assert values["average_incremental_accuracy"] == pytest.approx((3 + (5 + 4) / 2 + (6 + 2 + 8) / 3) / 3)
    # what got worse by 3 and better by 2: the best of the second task was 4, before the end, and not the first state's 20
    assert values["bwt"] == pytest.approx((-(6 - 3) + (4 - 2)) / 2)
    assert values["forgetting"] == pytest.approx(((6 - 3) + (2 - 4)) / 2)
    assert values["fwt"] == pytest.approx(((40 - 20) + (30 - 10)) / 2)
    assert values["intransigence"] == pytest.approx(((3 - 2) + (4 - 5) + 0) / 3)
    assert (metrics.METRICS["aa"].heading(LOWER), metrics.METRICS["bwt"].heading(LOWER)) == ("AA ↓", "BWT ↑")
    assert (metrics.METRICS["aa"].unit(LOWER), metrics.METRICS["forgetting"].unit(LOWER)) == (
        "perplexity",
        "perplexity",
    )


def test_the_metrics_over_some_tasks_alone() -> None:
    """Of three tasks the first and the last, the middle one, and the last."""
    reference = np.array([95.0, 70.0, 100.0])
    outer = metrics.summary(FULL, [1, 1, 2], reference_T=reference, tasks=[0, 2])
    assert outer["aa"] == pytest.approx((70 + 100) / 2)
    assert outer["micro_aa"] == pytest.approx((70 + 200) / 3)
    assert outer["bwt"] == 70 - 90
    assert outer["forgetting"] == 90 - 70
    assert outer["learning_accuracy"] == (90 + 100) / 2
    assert outer["fwt"] == 40 - 30
    assert outer["average_incremental_accuracy"] == pytest.approx((90 + 60 + (70 + 100) / 2) / 3)
    assert outer["intransigence"] == ((95 - 90) + 0) / 2
    middle = metrics.summary(FULL, [1, 1, 2], tasks=[1])
    # nothing was learnt of it after the first task
    assert middle["average_incremental_accuracy"] == (80 + 50) / 2
    assert (middle["bwt"], middle["fwt"]) == (50 - 80, 25 - 20)
    last = metrics.summary(FULL, [1, 1, 2], tasks=[2])
    assert (last["aa"], last["fwt"]) == (100.0, 10.0)
    assert math.isnan(last["bwt"]) and math.isnan(last["forgetting"])
    early = metrics.summary(FULL, [1, 1, 2], num_tasks=2, tasks=[2])
    assert all(math.isnan(value) for value in early.values()), "its turn is still to come"
    assert metrics.summary(FULL, [1, 1, 2], num_tasks=2, tasks=[0, 2])["aa"] == 60.0


def test_scores_in_different_units_have_no_mean() -> None:
    values = metrics.summary(FULL, [1, 1, 2], measure=None)
    assert set(values) == set(metrics.METRICS)
    assert all(math.isnan(value) for value in values.values())
