"""Both phases as values: scores, gap, ranking, cost and who read a test split."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.experiment import Experiment
from orchestrator.search.results import access_summary, is_search, method_result, ranking, search_results
from orchestrator.search.trial_store import TrialStore
from tests.orchestrator.search.searches import (
    Matrix,
    freeze_and_save,
    open_evaluation,
    open_search,
    score_trials,
    search_config,
    steady,
    train_trials,
    write_scores,
)

FORGETFUL: Matrix = [[10, 10, 10], [80, 20, 10], [60, 90, 20], [50, 70, 60]]  # AA 60, forgetting 25


def scored_search(out: Path, **search: Any) -> tuple[TrialStore, Experiment]:
    """Fine-tuning is better in tuning; each has two trials, of which the second fails for MIGU. Nothing is evaluated."""
    prepared, trial_store = open_search(search_config(out, **search))
    score_trials(trial_store, {"ft": [41.0, 73.5], "ft+migu": [66.0, "the loss is nan"]})
    return trial_store, open_evaluation(prepared, freeze_and_save(prepared, trial_store))


def test_both_phases_by_hand(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    for sequence, score in zip(experiment.sequences, (61.0, 64.5), strict=True):
        write_scores(sequence, steady(score))
    search = search_results(experiment)["search"]
    plain = search["methods"]["ft"]
    assert (plain["tuning_score"], plain["evaluation_score"], plain["gap"]) == (73.5, 61.0, 12.5)
    assert plain["trials"] == {"finished": 2}
    migu = search["methods"]["ft+migu"]
    assert (migu["tuning_score"], migu["evaluation_score"], migu["gap"]) == (66.0, 64.5, 1.5)
    assert migu["trials"] == {"finished": 1, "failed": 1}
    assert search["ranking"] == {"tuning": ["ft", "ft+migu"], "evaluation": ["ft+migu", "ft"], "kendall_tau": -1.0}
    assert search["summary"] == {
        "kendall_tau": -1.0,
        "ft/tuning_score": 73.5,
        "ft/evaluation_score": 61.0,
        "ft/gap": 12.5,
        "ft+migu/tuning_score": 66.0,
        "ft+migu/evaluation_score": 64.5,
        "ft+migu/gap": 1.5,
    }


def test_the_gap_is_below_zero_where_the_evaluation_is_better(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    write_scores(experiment.sequences[0], steady(90.0))
    methods = search_results(experiment)["search"]["methods"]
    assert methods["ft"]["gap"] == -16.5
    assert methods["ft+migu"]["evaluation_score"] is methods["ft+migu"]["gap"] is None, "not evaluated"


def test_the_evaluation_is_measured_as_the_tuning_was(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path, forgetting_weight=0.5)
    write_scores(experiment.sequences[0], FORGETFUL)
    assert search_results(experiment)["search"]["methods"]["ft"]["evaluation_score"] == 60 - 0.5 * 25


def test_an_evaluation_score_is_the_mean_over_seeds() -> None:
    search = {
        "metric": "aa",
        "forgetting_weight": 1.0,
        "chosen": {"methods": {"ft": {"values": {}, "score": 70.0}}},
        "trials": [],
    }
    sequences = [{"aa": 50.0, "forgetting": 4.0}, {"aa": 80.0, "forgetting": None}, {"aa": None, "forgetting": None}]
    result = method_result("ft", search, sequences)
    assert result["evaluation_score"] == (46.0 + 80.0) / 2
    assert result["gap"] == 70.0 - 63.0


def test_the_cost_is_that_of_all_trials_of_the_method(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    methods = search_results(experiment)["search"]["methods"]
    assert methods["ft"]["cost"] == {"tasks": 6, "trained": 6, "seconds": 12.0, "gpu_seconds": 0.0}
    assert methods["ft+migu"]["cost"] == {"tasks": 3, "trained": 3, "seconds": 6.0, "gpu_seconds": 0.0}


def method(tuning: float, evaluation: float | None) -> dict[str, float | None]:
    return {"tuning_score": tuning, "evaluation_score": evaluation}


def test_kendalls_tau_by_hand() -> None:
    found = ranking({"a": method(3, 1), "b": method(2, 3), "c": method(1, 2)})
    # Of the pairs ab, ac, bc one (bc) keeps its order and two do not: (1 - 2) / 3.
    assert found["kendall_tau"] == pytest.approx(-1 / 3, abs=1e-4)
    assert found["tuning"] == ["a", "b", "c"]
    assert found["evaluation"] == ["b", "c", "a"]


def test_tau_is_1_for_the_same_order_and_minus_1_for_the_reverse() -> None:
    same = {"a": method(30, 20), "b": method(50, 60), "c": method(40, 35)}
    assert ranking(same)["kendall_tau"] == 1.0
    assert ranking(same)["evaluation"] == ["b", "c", "a"]
    reverse = {"a": method(30, 60), "b": method(50, 20), "c": method(40, 35)}
    assert ranking(reverse)["kendall_tau"] == -1.0


def test_a_ranking_leaves_out_what_was_not_evaluated() -> None:
    assert ranking({"a": method(3, None), "b": method(2, 3)}) == {
        "tuning": ["b"],
        "evaluation": ["b"],
        "kendall_tau": None,
    }
    assert ranking({"a": method(3, 5), "b": method(2, 5)})["kendall_tau"] is None, "no order in the evaluation"


def test_search_json_and_trials_csv(tmp_path: Path) -> None:
    trial_store, experiment = scored_search(tmp_path)
    folder = experiment.folder / "search"
    content = json.loads((folder / "search.json").read_text())
    assert content["choices"] == 1
    assert content["chosen"]["methods"]["ft"]["score"] == 73.5
    assert "definition" not in content["chosen"]
    assert [(t["method"], t["number"], t["status"], t["score"]) for t in content["trials"]] == [
        ("ft", 0, "finished", 41.0),
        ("ft+migu", 0, "finished", 66.0),
        ("ft", 1, "finished", 73.5),
        ("ft+migu", 1, "failed", None),
    ]
    with (folder / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:7] == ["method", "number", "status", "score", "tasks", "training.lr", "migu.ratio"]
    assert list(rows[0])[-5:] == ["asked", "trained", "seconds", "gpu_seconds", "reason"]
    assert (rows[2]["score"], rows[2]["aa"], rows[2]["forgetting"]) == ("73.5", "73.5", "0.0")
    assert float(rows[2]["training.lr"]) == trial_store.trials["ft-001"].values["training.lr"]
    assert (rows[2]["migu.ratio"], rows[2]["asked"], rows[2]["seconds"]) == ("", "3", "6.0")
    assert (rows[3]["tasks"], rows[3]["reason"]) == ("0", "the loss is nan")


def test_a_trial_that_has_not_ended_has_a_line(tmp_path: Path) -> None:
    search, trial_store = open_search(
        search_config(tmp_path, ["ft"], trials=3, space={"training.lr": [1e-4, 1e-3, 1e-2]})
    )
    trial = trial_store.start_next()
    assert trial
    write_scores(trial.sequences[0], steady(50.0))
    trial_store.record_result(trial)
    trial_store.start_next()
    freeze_and_save(search, trial_store)
    content = json.loads((search.folder / "search.json").read_text())
    assert [(t["status"], t["score"], t["cost"].get("tasks")) for t in content["trials"]] == [
        ("finished", 50.0, 3),
        ("not ended", None, None),
    ]


def test_an_experiment_with_other_values_is_no_search(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    assert is_search(experiment)
    other = experiment.sequences[0].method.model_copy(update={"training": {"lr": 0.5}})
    changed = experiment.sequences[0].model_copy(update={"method": other})
    assert not is_search(Experiment(experiment.config, (changed, *experiment.sequences[1:])))
    (experiment.folder / "search" / "search.json").unlink()
    assert not is_search(experiment)


def test_the_access_summary_by_hand() -> None:
    def entry(time: int, dataset: str, by: str, experiment: str = "mine", why: str = "scores") -> dict[str, Any]:
        return {"time": time, "dataset": dataset, "by": by, "experiment": experiment, "why": why}

    log = [
        entry(1, "qqp", "plan", why="keys"),
        entry(2, "yelp", "ft-s1"),
        entry(3, "amazon", "ft-s1"),
        entry(4, "yelp", "ft-s1"),
        entry(5, "yelp", "ft-s1", experiment="theirs"),
        entry(6, "elsewhere", "ft-s1"),
    ]
    first, second, third = access_summary(log, "mine", {"qqp", "yelp", "amazon"})
    assert first == {"by": "plan", "why": "keys", "datasets": ["qqp"], "readings": 1, "first": 1, "last": 1}
    assert second == {
        "by": "ft-s1", "why": "scores", "datasets": ["amazon", "yelp"], "readings": 3, "first": 2, "last": 4,
    }  # fmt: skip
    assert (third["by"], third["readings"]) == ("ft-s1 of theirs", 1)


def test_no_trial_reads_a_test_split(tmp_path: Path) -> None:
    """Trained, since a journal that is written by hand reads nothing."""
    from orchestrator.training.sequence import run_sequence

    search, trial_store = open_search(search_config(tmp_path, ["ft"], trials=1))
    train_trials(trial_store)
    experiment = open_evaluation(search, freeze_and_save(search, trial_store))
    (sequence,) = experiment.sequences
    view = run_sequence(sequence)
    result = search_results(experiment)
    assert {entry["by"] for entry in result["search"]["test_access_log"]} == {"plan", sequence.id}
    assert result["sequences"][0]["test_sizes"] == [10] * 3
    evaluation_score = result["search"]["methods"]["ft"]["evaluation_score"]
    assert evaluation_score == pytest.approx(view.matrix()[-1].mean())
