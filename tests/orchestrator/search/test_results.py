"""Both phases as values: scores, gap, ranking, cost and who read a test split."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment
from orchestrator.search.results import access_summary, add_gap, is_search, method_result, ranking, search_results
from orchestrator.search.trial_store import TrialStore
from orchestrator.store.journal import Journal
from orchestrator.store.records.search_events import SearchStarted
from tests.orchestrator.search.searches import (
    EVALUATION,
    Matrix,
    freeze_and_save,
    open_evaluation,
    open_search,
    score_trial,
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
    assert (plain["tuning_score"], plain["evaluation_score"], plain["drop"]) == (73.5, 61.0, 12.5)
    assert plain["trials"] == {"finished": 2}
    migu = search["methods"]["ft+migu"]
    assert (migu["tuning_score"], migu["evaluation_score"], migu["drop"]) == (66.0, 64.5, 1.5)
    assert migu["trials"] == {"finished": 1, "failed": 1}
    assert plain["runs"] == migu["runs"] == {"finished": 1, "planned": 1}
    assert search["ranking"] == {
        "tuning": ["ft", "ft+migu"],
        "evaluation": ["ft+migu", "ft"],
        "conventional": [],
        "kendall_tau": -1.0,
        "kendall_tau_conventional": None,
    }
    assert plain["gap"] is search["conventional"] is None, "no search was tuned on the evaluation streams"
    assert search["summary"] == {
        "kendall_tau": -1.0,
        "ft/tuning_score": 73.5,
        "ft/evaluation_score": 61.0,
        "ft/drop": 12.5,
        "ft/runs_finished": 1,
        "ft/runs_planned": 1,
        "ft+migu/tuning_score": 66.0,
        "ft+migu/evaluation_score": 64.5,
        "ft+migu/drop": 1.5,
        "ft+migu/runs_finished": 1,
        "ft+migu/runs_planned": 1,
    }


def test_the_drop_is_below_zero_where_the_evaluation_is_better(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    write_scores(experiment.sequences[0], steady(90.0))
    methods = search_results(experiment)["search"]["methods"]
    assert methods["ft"]["drop"] == -16.5
    assert methods["ft+migu"]["evaluation_score"] is methods["ft+migu"]["drop"] is None, "not evaluated"


def test_the_evaluation_is_measured_as_the_tuning_was(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path, forgetting_weight=0.5)
    write_scores(experiment.sequences[0], FORGETFUL)
    assert search_results(experiment)["search"]["methods"]["ft"]["evaluation_score"] == 60 - 0.5 * 25


def run_of(aa: float | None, forgetting: float | None = None, status: str = "finished") -> dict[str, Any]:
    return {"aa": aa, "forgetting": forgetting, "status": status}


def method_of(*runs: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning with 70 in tuning and these runs in the evaluation."""
    entry = {"tuning": {"name": "full"}, "name": "ft"}
    search = {
        "metric": "aa",
        "forgetting_weight": 1.0,
        "chosen": {"methods": {"ft": {"values": {}, "score": 70.0, "entry": entry}}},
        "trials": [],
    }
    return method_result("ft", search, list(runs))


def test_an_evaluation_score_is_the_mean_over_seeds() -> None:
    result = method_of(run_of(50.0, 4.0), run_of(80.0), run_of(66.0, 9.0))
    assert result["evaluation_score"] == (46.0 + 80.0 + 57.0) / 3
    assert result["drop"] == 70.0 - 61.0
    assert result["runs"] == {"finished": 3, "planned": 3}


@pytest.mark.parametrize("lost", [run_of(None, status="failed"), run_of(80.0, status="failed"), run_of(None)])
def test_a_method_with_a_run_that_did_not_finish_has_no_score(lost: dict[str, Any]) -> None:
    """Whatever its other runs reach; also where the one that failed had its scores before."""
    result = method_of(run_of(58.0), lost)
    assert result["evaluation_score"] is result["drop"] is None
    assert result["runs"] == {"finished": 1, "planned": 2}


def test_survivors_do_not_beat_a_method_that_finished(tmp_path: Path) -> None:
    """58 and a failure against 60 and 40: in the object, the ranking and what MLflow gets."""
    prepared, trial_store = open_search(search_config(tmp_path).model_copy(update={"seeds": (7, 8)}))
    score_trials(trial_store, {"ft": [41.0, 73.5], "ft+migu": [66.0, 12.0]})
    experiment = open_evaluation(prepared, freeze_and_save(prepared, trial_store))
    by_method = {(s.method.label, s.seed): s for s in experiment.sequences}
    write_scores(by_method["ft", 7], steady(58.0))
    write_scores(by_method["ft", 8], steady(0.0)[:1], failure="the loss is nan")
    write_scores(by_method["ft+migu", 7], steady(60.0))
    write_scores(by_method["ft+migu", 8], steady(40.0))
    search = search_results(experiment)["search"]
    assert search["methods"]["ft"]["evaluation_score"] is None
    assert search["methods"]["ft+migu"]["evaluation_score"] == 50.0
    assert search["ranking"]["evaluation"] == search["ranking"]["tuning"] == ["ft+migu"]
    summary = search["summary"]
    assert summary["ft/evaluation_score"] is None
    assert (summary["ft/runs_finished"], summary["ft/runs_planned"]) == (1, 2)


def test_the_conventional_search_gives_the_gap(tmp_path: Path) -> None:
    """The same search, tuned on the evaluation's own stream: 68 and 60 there against 61 and 64.5 held out."""
    _, held_out = scored_search(tmp_path)
    for sequence, score in zip(held_out.sequences, (61.0, 64.5), strict=True):
        write_scores(sequence, steady(score))
    usual = search_config(tmp_path, holdout="none", streams=[{**EVALUATION, "max_dev": 12}])
    prepared, trial_store = open_search(usual.model_copy(update={"name": "usual"}))
    for name, config in (("small", search_config(tmp_path)), ("usual", prepared.config)):
        started = SearchStarted(config=config.model_dump(mode="json"))
        Journal(tmp_path / "experiments" / name / "search", "search").append(started)
    score_trials(trial_store, {"ft": [80.0, 70.0], "ft+migu": [60.0, 75.0]})
    conventional = open_evaluation(prepared, freeze_and_save(prepared, trial_store))
    for sequence, score in zip(conventional.sequences, (68.0, 60.0), strict=True):
        write_scores(sequence, steady(score))
    search = search_results(held_out)["search"]
    assert search["conventional"] == "usual"
    assert (search["methods"]["ft"]["conventional_score"], search["methods"]["ft"]["gap"]) == (68.0, 7.0)
    assert search["methods"]["ft+migu"]["gap"] == -4.5
    assert search["ranking"]["conventional"] == ["ft", "ft+migu"]
    assert search["ranking"]["kendall_tau_conventional"] == -1.0
    assert (search["summary"]["ft/gap"], search["summary"]["ft/conventional_score"]) == (7.0, 68.0)
    assert search_results(conventional)["search"]["conventional"] is None, "it has none of its own"


def test_the_cost_is_that_of_all_trials_of_the_method(tmp_path: Path) -> None:
    _, experiment = scored_search(tmp_path)
    methods = search_results(experiment)["search"]["methods"]
    assert methods["ft"]["cost"] == {"tasks": 6, "trained": 6, "seconds": 12.0, "gpu_seconds": 0.0}
    assert methods["ft+migu"]["cost"] == {"tasks": 3, "trained": 3, "seconds": 6.0, "gpu_seconds": 0.0}


def test_a_gap_needs_all_runs_of_both_searches() -> None:
    for ours, theirs in ((61.0, None), (None, 68.0)):
        found = {"evaluation_score": ours, "conventional_score": None, "gap": None}
        add_gap(found, {"evaluation_score": theirs})
        assert found["gap"] is found["conventional_score"] is None
    alone = {"evaluation_score": 61.0, "conventional_score": None, "gap": None}
    add_gap(alone, None)
    assert alone["gap"] is None


def method(tuning: float, evaluation: float | None, is_reference: bool = False) -> dict[str, Any]:
    return {
        "tuning_score": tuning,
        "evaluation_score": evaluation,
        "conventional_score": None,
        "is_reference": is_reference,
    }


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
    found = ranking({"a": method(3, None), "b": method(2, 3)})
    assert (found["tuning"], found["evaluation"], found["kendall_tau"]) == (["b"], ["b"], None)
    assert ranking({"a": method(3, 5), "b": method(2, 5)})["kendall_tau"] is None, "no order in the evaluation"


def test_what_methods_are_only_compared_with_has_no_rank() -> None:
    """Two methods change places between joint training and the untrained model: tau is -1, and not 2/3."""
    methods = {"a": method(50, 40), "b": method(45, 48), "joint": method(90, 80, True), "zero": method(10, 12, True)}
    found = ranking(methods)
    assert found["kendall_tau"] == -1.0
    assert (found["tuning"], found["evaluation"]) == (["a", "b"], ["b", "a"])


def test_reference_runs_and_class_means_are_what_methods_are_compared_with(tmp_path: Path) -> None:
    methods = ["ft", "zero-shot", "nmc", "expert", "joint", "ft+migu", "fetril"]
    prepared, trial_store = open_search(search_config(tmp_path, methods, trials=1))
    while trial := trial_store.start_next():
        score_trial(trial_store, trial, *([50.0] * len(trial.sequences)))
    experiment = open_evaluation(prepared, freeze_and_save(prepared, trial_store))
    found = search_results(experiment)["search"]["methods"]
    assert [label for label, of_label in found.items() if not of_label["is_reference"]] == ["ft", "ft+migu", "fetril"]


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


def test_a_search_json_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    """And one of before it was sealed is read."""
    _, experiment = scored_search(tmp_path)
    file = experiment.folder / "search" / "search.json"
    sound = file.read_bytes()
    for damage in (sound.replace(b"73.5", b"83.5"), sound[:-30], b"", b"null", b"\xff"):
        file.write_bytes(damage)
        for read in (is_search, search_results):
            with pytest.raises(UserError, match=r"search.json: damaged \(.*\); the same `orchestrator tune`"):
                read(experiment)
    values = json.loads(sound)
    del values["crc"]
    file.write_text(json.dumps(values, indent=1))
    assert is_search(experiment)


def test_what_was_asked_for_is_counted_over_all_seeds(tmp_path: Path) -> None:
    search, trial_store = open_search(search_config(tmp_path, ["ft"], trials=1, seeds=[1, 2]))
    score_trials(trial_store, {"ft": [50.0]})
    freeze_and_save(search, trial_store)
    with (search.folder / "trials.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["tasks"], row["asked"]) == ("3", "6")


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
