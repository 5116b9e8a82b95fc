"""What is printed of a search that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.search.report import access_lines, notes, print_choice, print_search
from orchestrator.search.results import search_results
from tests.orchestrator.search.searches import (
    freeze_and_save,
    open_evaluation,
    open_search,
    score_trials,
    search_config,
    steady,
    write_scores,
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search in which fine-tuning loses its lead: 73.5 and 66 in tuning, 61 and 64.5 in the evaluation."""
    search, trial_store = open_search(search_config(tmp_path_factory.mktemp("search")))
    score_trials(trial_store, {"ft": [41.0, 73.5], "ft+migu": [66.0, "the loss is nan"]})
    experiment = open_evaluation(search, freeze_and_save(search, trial_store))
    for sequence, score in zip(experiment.sequences, (61.0, 64.5), strict=True):
        write_scores(sequence, steady(score))
    return search_results(experiment)


def lines_of(print_it: Any, *arguments: Any) -> list[str]:
    console = Console(width=200)
    with console.capture() as captured:
        print_it(*arguments, console)
    return captured.get().splitlines()


def test_the_tables(result: dict[str, Any]) -> None:
    lines = lines_of(print_search, result)
    title = " ".join(" ".join(lines[:2]).split())  # a long one is on two lines
    assert title == "small: evaluated on embedded (test split, seed 7), tuned on embedded-tuning (dev split)"
    (plain, plain_cost) = [line for line in lines if line.startswith("│ ft ")]
    assert [cell.strip() for cell in plain.split("│")[1:-1]] == ["ft", "61.0", "73.5", "+12.5", "0.0", "finished"]
    assert [cell.strip() for cell in plain_cost.split("│")[1:5]] == ["ft", "2", "6 of 6", "12"]
    (migu, migu_cost) = [line for line in lines if line.startswith("│ ft+migu ")]
    assert [cell.strip() for cell in migu.split("│")[1:-1]] == ["ft+migu", "64.5", "66.0", "+1.5", "0.0", "finished"]
    assert [cell.strip() for cell in migu_cost.split("│")[1:5]] == ["ft+migu", "2, 1 failed", "3 of 3", "6"]


def test_the_notes(result: dict[str, Any]) -> None:
    text = "\n".join(notes(result["search"]))
    assert (
        "ranking in the evaluation: ft+migu > ft; in tuning was ft > ft+migu; Kendall tau -1.00 over 2 methods" in text
    )
    assert "no text is on both sides" in text
    assert "none in common" in text
    assert "scenario: 3 tasks of 24 train examples; no method keeps examples of earlier tasks" in text
    assert "AA (mean score over tasks after the last one), in %; drop: tuning − evaluation" in text
    assert "gap" not in text
    assert "trials that failed run again with --retry-failed" in text
    assert "test splits were read by (the test-access log):" in text
    assert "within tuning streams train was compared with dev alone" in text


def changed(search: dict[str, Any], **changes: Any) -> str:
    return "\n".join(notes(search | changes))


def test_the_warnings(result: dict[str, Any]) -> None:
    search = result["search"]
    assert "ft: its space held 2 of the 5 trials" in changed(search, trials_each=5)
    assert "its space held" not in changed(search)
    assert "values were chosen 3 times under this name" in changed(search, choices=3)
    assert "tuned on the first task alone" in changed(search, select="first-task")
    assert "one, no trial finished" not in changed(search)
    missing = search["chosen"] | {"missing": ["ewc"]}
    assert "ewc: no trial finished, so it was not evaluated" in changed(search, chosen=missing)
    assert "− 0.5 × forgetting" in changed(search, forgetting_weight=0.5)
    memory = changed(search, memory={"replay": 0.02, "der++": 0.02}, scenario=[[12, 2], [24, 3]])
    assert "2 tasks of 12 to 24 train examples; memory: 2 % of each earlier task's examples (replay, der++)" in memory
    unproven = search["proof"] | {"level": "none"}
    assert "nothing was held out but the dev split" in changed(search, proof=unproven)
    related = search["proof"] | {"allowed_related_pairs": [["yelp", "amazon"]]}
    assert "related data sets on both sides: yelp / amazon" in changed(search, proof=related)
    assert "no score and no rank" not in changed(search)
    half = {**search["methods"]["ft"], "evaluation_score": None, "runs": {"finished": 1, "planned": 2}}
    unscored = changed(search, methods={**search["methods"], "ft": half})
    assert "ft: 1 of 2 runs of the evaluation finished, so it has no score and no rank" in unscored
    equal = {"tuning": ["ft"], "evaluation": ["ft"], "kendall_tau": None}
    assert "in tuning the same; Kendall tau – over 1 methods" in changed(search, ranking=equal)


def cells_of(lines: list[str], method: str) -> list[str]:
    """The first line of a method."""
    line = next(line for line in lines if line.startswith(f"│ {method} "))
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_a_method_with_a_failed_run_shows_their_number_and_no_mean(result: dict[str, Any]) -> None:
    """The mean of the run that survived, 61, is nowhere."""
    half = {**result["search"]["methods"]["ft"], "evaluation_score": None, "drop": None}
    half["runs"] = {"finished": 1, "planned": 2}
    search = {**result["search"], "methods": {**result["search"]["methods"], "ft": half}}
    failed = {**result["sequences"][0], "seed": 8, "status": "failed", "aa": None, "bwt": None}
    lines = lines_of(print_search, {**result, "search": search, "sequences": [*result["sequences"], failed]})
    assert cells_of(lines, "ft") == ["ft", "1 of 2 runs", "73.5", "–", "–", "finished, failed"]
    assert cells_of(lines, "ft+migu")[1] == "64.5"


def test_the_gap_stands_beside_the_drop_where_there_is_a_conventional_search(result: dict[str, Any]) -> None:
    plain = {**result["search"]["methods"]["ft"], "conventional_score": 62.5, "gap": 1.5}
    ranking = {**result["search"]["ranking"], "kendall_tau_conventional": 0.5}
    changes = {"conventional": "usual", "ranking": ranking, "methods": {**result["search"]["methods"], "ft": plain}}
    search = result["search"] | changes
    lines = lines_of(print_search, {**result, "search": search})
    assert cells_of(lines, "ft")[3:5] == ["+12.5", "+1.5"]
    assert cells_of(lines, "ft+migu")[3:5] == ["+1.5", "–"]
    text = "\n".join(notes(search))
    assert "gap: evaluation of 'usual', tuned on the evaluation streams themselves, − this evaluation" in text
    assert "Kendall tau between the two 0.50" in text


def test_the_access_log() -> None:
    assert access_lines([]) == ["no test split was read"]
    entry = {"by": "ft-s1", "why": "scores", "datasets": ["a", "b"], "readings": 2, "first": 0, "last": 5}
    many = entry | {"datasets": ["a", "b", "c", "d"]}
    _, few_line, many_line = access_lines([entry, many])
    assert few_line.endswith("ft-s1: a, b (scores)")
    assert many_line.endswith("ft-s1: 4 data sets (scores)")


def test_the_choice_is_a_line_a_method(tmp_path: Path) -> None:
    chosen = {"methods": {"ft": {"values": {"training.lr": 0.003}, "trial": 1, "score": 73.54}}}
    assert lines_of(print_choice, chosen) == ["chosen for ft: lr 0.003 (trial 1, 73.5 on dev)"]


def test_a_deviation_is_explained_where_one_is_shown(result: dict[str, Any]) -> None:
    explained = "a ± b: mean and sample standard deviation (n - 1) over seeds and streams"
    assert explained not in lines_of(print_search, result)
    second = [{**sequence, "seed": 8, "aa": sequence["aa"] + 2} for sequence in result["sequences"]]
    lines = lines_of(print_search, {**result, "sequences": [*result["sequences"], *second]})
    assert explained in lines
    assert any("62.0 ± 1.4" in line for line in lines)


def test_where_a_lower_score_is_better_the_turned_scores_are_explained(tmp_path: Path) -> None:
    """Perplexities: 8 and 4.5 in tuning, of which the second is chosen, and 6.25 in the evaluation."""
    search, trial_store = open_search(search_config(tmp_path, ["ft"], scorer="perplexity"))
    score_trials(trial_store, {"ft": [steady(8.0), steady(4.5)]})
    experiment = open_evaluation(search, freeze_and_save(search, trial_store))
    write_scores(experiment.sequences[0], steady(6.25))
    found = search_results(experiment)
    (plain, _) = [line for line in lines_of(print_search, found) if line.startswith("│ ft ")]
    assert [cell.strip() for cell in plain.split("│")[1:-1]] == ["ft", "-6.25", "-4.50", "+1.75", "0.00", "finished"]
    assert (
        "evaluation and tuning: −AA (mean score over tasks after the last one; lower is better), in perplexity; drop"
        in "\n".join(notes(found["search"]))
    )
