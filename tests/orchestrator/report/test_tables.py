"""The table of an experiment on the screen."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from methods import REFERENCE_RUNS
from orchestrator.report.measures import named_measure
from orchestrator.report.tables import print_report
from tests.orchestrator.report.examples import mixed_result_of, result_of


def printed(*sequences: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        print_report({"experiment": "small", "sequences": list(sequences)}, console)
    return captured.get()


def test_a_line_for_each_method_with_the_deviation_over_seeds() -> None:
    text = printed(result_of(), result_of(seed=2, aa=77.0), result_of(method="lora", aa=60.0))
    title, *lines = text.splitlines()
    assert title.strip() == "small: news, 2 tasks, seed 1, 2"
    ft, lora = (next(line for line in lines if line.lstrip().startswith(name)) for name in ("ft", "lora"))
    assert ft.split()[:5] == ["ft", "76.0", "±", "1.4", "-20.0"]
    assert lora.split()[:3] == ["lora", "60.0", "-20.0"]


def test_headings_have_an_arrow_towards_better_values() -> None:
    heading = printed(result_of()).splitlines()[2]
    for title in ("AA ↑", "BWT ↑", "forget. ↓", "learned ↑"):
        assert title in heading
    assert "AA opt." not in heading


def test_the_score_among_options_is_shown_where_a_model_has_one() -> None:
    text = printed(result_of(aa_options=91.5))
    assert "AA opt. ↑" in text.splitlines()[2]
    assert "91.5" in text
    assert "AA opt. AA when only the task's own options compete" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100])
def test_what_training_took_is_left_out_where_there_is_no_room(width: int) -> None:
    text = printed(result_of(method="m" * 28), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert ("tokens" in text.splitlines()[2]) == (width == 100)


def test_what_rows_of_seen_tasks_lack_is_said_once() -> None:
    lacking = {"rows": "seen", "fwt": None, "accuracy_matrix": [[None, None], [80.0, None], [60.0, 90.0]]}
    line = (
        "evaluation.rows is seen: no state is scored on a task before it was trained, so there is no forward transfer"
    )
    text = " ".join(printed(result_of(**lacking), result_of(seed=2, **lacking)).split())
    assert text.count(line) == 1
    assert line not in " ".join(printed(result_of(rows="all"), result_of(rows="seen")).split())


def test_reference_runs_stand_below_the_methods_and_are_explained() -> None:
    joint = result_of(method="joint", reference="joint", bwt=None, forgetting=None, learning_accuracy=None)
    text = printed(joint, result_of())
    assert text.index("\n ft ") < text.index("\n joint ")
    assert f"joint: {REFERENCE_RUNS['joint'].sentence}" in text
    assert text.count("–") == 3


def test_a_status_column_and_the_reason_of_a_failure() -> None:
    assert "status" not in printed(result_of()).splitlines()[2]
    text = printed(result_of(), result_of(seed=2, status="failed", aa=None, reason="it broke"))
    assert "status" in text.splitlines()[2]
    assert "finished, failed" in text
    assert "ft, seed 2: it broke" in text


def test_a_mean_over_some_of_the_runs_says_so() -> None:
    lost = result_of(seed=2, status="failed", aa=None, bwt=None, reason="it broke")
    text = printed(result_of(), lost, result_of(method="lora"), result_of(method="lora", seed=2), width=120)
    ft = next(line for line in text.splitlines() if line.lstrip().startswith("ft "))
    assert ft.split()[:6] == ["ft", "(1", "of", "2", "runs)", "75.0"]
    assert "lora (" not in text
    assert "ft: 1 of 2 runs finished; means over these are not to be compared with other methods'" in text
    # none at all has no mean to warn of
    alone = printed(result_of(status="failed", aa=None, reason="it broke"))
    assert "ft (0 of 1 runs)" in alone
    assert "means over these" not in alone


def test_intransigence_is_shown_where_there_is_a_reference_run() -> None:
    assert "intrans." not in printed(result_of())
    text = printed(result_of(intransigence=3.25, measured_from="joint"), result_of(method="joint", reference="joint"))
    assert "intrans. ↓" in text.splitlines()[2]
    assert "3.2" in next(line for line in text.splitlines() if line.lstrip().startswith("ft "))
    assert "lacks to the reference run (joint)" in " ".join(text.split())


def test_dropped_rows_are_said_once() -> None:
    dropped = {"sport": {"train": 3, "test": 0}}
    text = printed(result_of(dropped_rows=dropped), result_of(seed=2, dropped_rows=dropped))
    assert text.count("sport: 3 train rows with a label outside the label set were left out") == 1


def test_a_deviation_is_explained_where_one_is_shown() -> None:
    explained = "a ± b mean and sample standard deviation (n - 1) over the seeds"
    assert explained in " ".join(printed(result_of(), result_of(seed=2)).split())
    # one seed of each method has none
    assert "±" not in printed(result_of(), result_of(method="lora"))


def test_a_stream_of_several_units_has_a_table_for_each_scorer_and_none_over_all() -> None:
    text = printed(mixed_result_of(), mixed_result_of(method="lora"), width=120)
    legend = " ".join(text.split())
    assert text.count("small:") == 2
    assert "small: news, 2 tasks, seed 1, of these sport by perplexity, where lower is better method" in legend
    assert "small: news, 2 tasks, seed 1, of these law by exact-match method" in legend
    headings = [line for line in text.splitlines() if "method" in line.split()[:1]]
    assert "AA ↓" in headings[0] and "BWT ↑" in headings[0] and "forget. ↓" in headings[0]
    assert "AA ↑" in headings[1]
    rows = [line.split()[:4] for line in text.splitlines() if line.split()[:1] == ["ft"]]
    assert rows == [["ft", "60.00", "20.00", "-20.00"], ["ft", "90.0", "–", "–"]]
    assert "In % where a title says nothing else: AA mean score" in legend
    assert (
        "where a lower score is better, a change above 0 is still one for the better, and forgetting is a rise"
        in legend
    )


def test_a_stream_of_one_other_unit_has_one_table_that_names_it() -> None:
    lower = {"scorers": ["bits-per-byte", "bits-per-byte"], "aa": 1.23456}
    text = printed(result_of(**lower), width=120)
    assert text.splitlines()[0].strip() == "small: news, 2 tasks, seed 1, in bits per byte, where lower is better"
    assert "AA ↓" in text.splitlines()[2]
    assert "1.235" in text
    assert "%" not in text
    assert "In %: AA mean" in " ".join(printed(result_of()).split())


def test_scorers_of_one_unit_have_a_mean_and_each_a_table() -> None:
    scorers = ["sari", "rouge-l"]
    parts = {name: {**named_measure([name]), "aa": 60.0 + i, "task_ids": [i]} for i, name in enumerate(scorers)}
    text = printed(result_of(**named_measure(scorers), by_scorer=parts), width=120)
    titles = [line.strip() for line in text.splitlines() if line.startswith("small:")]
    assert titles == [
        "small: news, 2 tasks, seed 1, all scorers together",
        "small: news, 2 tasks, seed 1, of these sport by sari",
        "small: news, 2 tasks, seed 1, of these law by rouge-l",
    ]
    assert [line.split()[1] for line in text.splitlines() if line.split()[:1] == ["ft"]] == ["75.0", "60.0", "61.0"]


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_the_way_in_which_labels_are_chosen_is_said(scoring: str) -> None:
    line = f"model.scoring is {scoring}: "
    assert " ".join(printed(result_of(scoring=scoring), result_of(seed=2, scoring=scoring)).split()).count(line) == 1
    assert "model.scoring" not in printed(result_of(scoring="auto"))
