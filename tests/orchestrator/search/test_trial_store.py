"""All trials of a search: in which order they come, what a journal brings back, and which is the best."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.trial_store import TrialStore
from orchestrator.store.access_log import TestAccessLog
from orchestrator.training.sequence import run_sequence
from streams import SealedSplit
from tests.orchestrator.search.searches import (
    Matrix,
    folder_config,
    mark_stopped,
    open_search,
    score_trial,
    score_trials,
    search_config,
    sentences,
    steady,
    train_trials,
    write_scores,
    write_tasks,
    write_test_split,
)

FOUR_RATES = {"training.lr": [1e-4, 3e-4, 1e-3, 3e-3]}


def scored_store(out: Path, outcomes: list[Any], **search: Any) -> TrialStore:
    """The trials of fine-tuning with these outcomes, by number."""
    settings = {"trials": len(outcomes), "space": FOUR_RATES, **search}
    _, trial_store = open_search(search_config(out, ["ft"], **settings))
    score_trials(trial_store, {"ft": outcomes})
    return trial_store


def best_number(trial_store: TrialStore) -> int | None:
    best = trial_store.best("ft")
    return best.number if best else None


def test_the_best_trial_has_the_highest_score(tmp_path: Path) -> None:
    trial_store = scored_store(tmp_path, [41.0, 73.5, 12.0, 68.0])
    assert {key: result.score for key, result in trial_store.results.items()} == {
        "ft-000": 41.0,
        "ft-001": 73.5,
        "ft-002": 12.0,
        "ft-003": 68.0,
    }
    assert best_number(trial_store) == 1


def test_of_equal_trials_the_first_is_the_best(tmp_path: Path) -> None:
    assert best_number(scored_store(tmp_path, [20.0, 55.0, 55.0, 30.0])) == 1


def test_scores_below_zero_are_scores(tmp_path: Path) -> None:
    forgetful: Matrix = [[0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 9]]  # AA 3, forgetting 90
    milder: Matrix = [[0, 0, 0], [60, 0, 0], [0, 60, 0], [0, 0, 9]]  # AA 3, forgetting 60
    trial_store = scored_store(tmp_path, [forgetful, milder], forgetting_weight=1.0)
    assert [result.score for result in trial_store.results.values()] == [3 - 90, 3 - 60]
    assert best_number(trial_store) == 1


def test_stopped_and_failed_trials_are_not_chosen(tmp_path: Path) -> None:
    stopped = steady(99.0)[:3]
    trial_store = scored_store(tmp_path, [stopped, 40.0, "the loss is nan", 30.0])
    assert trial_store.results["ft-000"].score == 99.0
    assert best_number(trial_store) == 1
    assert best_number(scored_store(tmp_path / "none", [stopped, "the loss is nan"])) is None


def test_a_trial_that_ends_early_without_the_schedulers_word_has_failed(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"]))
    silent, stopped = trial_store.start_next(), trial_store.start_next()
    assert silent and stopped
    mark_stopped(trial_store, stopped, 2)
    for trial in (silent, stopped):
        write_scores(trial.sequences[0], steady(99.0)[:3])
        trial_store.record_result(trial)
    assert [trial_store.results[trial.key].status for trial in (silent, stopped)] == ["failed", "stopped"]


def test_a_trial_is_scored_over_all_streams_and_seeds(tmp_path: Path) -> None:
    """A trial that is the best on the first seed alone is not the best."""
    config = search_config(tmp_path, ["ft"], seeds=[1, 2])
    _, trial_store = open_search(config)
    for outcomes in ((90.0, 10.0), (60.0, 70.0)):
        trial = trial_store.start_next()
        assert trial
        score_trial(trial_store, trial, *outcomes)
    assert [result.score for result in trial_store.results.values()] == [50.0, 65.0]
    assert best_number(trial_store) == 1


def test_each_trial_has_every_stream_and_seed(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], seeds=[1, 2])
    _, trial_store = open_search(config)
    trial = trial_store.start_next()
    assert trial
    assert [sequence.seed for sequence in trial.sequences] == [1, 2]
    assert {sequence.split for sequence in trial.sequences} == {"dev"}
    assert {sequence.training.lr for sequence in trial.sequences} == {trial.values["training.lr"]}


def test_methods_take_turns(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path))
    keys = []
    while trial := trial_store.start_next():
        keys.append(trial.key)
    assert keys == ["ft-000", "ft+migu-000", "ft-001", "ft+migu-001"]
    assert trial_store.running == set(keys)
    assert not trial_store.is_done()


def test_the_next_suggestion_sees_scores_of_finished_trials_of_the_rounds_before(tmp_path: Path) -> None:
    trial_store = scored_store(tmp_path, [steady(99.0)[:3], 40.0, "the loss is nan", 70.0], at_once=3)
    records = trial_store.records("ft", 3)
    assert [record.score for record in records] == [None, 40.0, None]
    assert [record.running for record in records] == [False, False, False]
    assert [record.values for record in records] == [t.values for t in trial_store.trials_of("ft")[:3]]
    # that it has ended by now makes no difference to one of its round
    later = trial_store.records("ft", 4)
    assert [record.score for record in later] == [None, 40.0, None, None]
    assert [record.running for record in later] == [False, False, False, True]


def test_the_fingerprint_follows_every_score(tmp_path: Path) -> None:
    first = scored_store(tmp_path / "a", [41.0, 73.5]).fingerprint()
    assert scored_store(tmp_path / "b", [41.0, 73.5]).fingerprint() == first
    assert scored_store(tmp_path / "c", [41.0, 73.6]).fingerprint() != first


def test_results_come_back_from_the_journal(tmp_path: Path) -> None:
    trial_store = scored_store(tmp_path, [41.0, "the loss is nan"])
    _, again = open_search(search_config(tmp_path, ["ft"], trials=2, space=FOUR_RATES))
    assert again.results == trial_store.results
    assert {key: trial.values for key, trial in again.trials.items()} == {
        key: trial.values for key, trial in trial_store.trials.items()
    }
    assert again.is_done()


def test_another_definition_is_another_search(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"], trials=1))
    score_trials(trial_store, {"ft": [41.0]})
    _, other = open_search(search_config(tmp_path, ["ft"], trials=1, seeds=[2]))
    assert not other.trials
    _, same = open_search(search_config(tmp_path, ["ft"], trials=2, max_concurrent=1))
    assert len(same.trials) == 1


def test_a_budget_of_tasks_ends_a_method_that_has_spent_it(tmp_path: Path) -> None:
    scores = {"ft": [10.0, 20.0], "ft+migu": [30.0, 40.0]}
    _, trial_store = open_search(search_config(tmp_path, trial_tasks=4))
    score_trials(trial_store, scores)
    assert {label: trial_store.usage(label) for label in scores} == {"ft": 6, "ft+migu": 6}
    _, small = open_search(search_config(tmp_path / "small", trial_tasks=3))
    score_trials(small, scores)
    assert {label: len(small.trials_of(label)) for label in scores} == {"ft": 1, "ft+migu": 1}


def test_a_stopped_trial_leaves_something_of_the_budget(tmp_path: Path) -> None:
    """One that runs counts with all that it may take; of one that ended counts what it took."""
    _, trial_store = open_search(search_config(tmp_path, ["ft"], trial_tasks=3))
    trial = trial_store.start_next()
    assert trial
    assert trial_store.usage("ft") == 3
    assert trial_store.start_next() is None
    score_trial(trial_store, trial, steady(40.0)[:3])
    assert trial_store.usage("ft") == 2
    assert trial_store.start_next()


def test_fewer_trials_than_before_count_for_every_method(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, trials=2))
    score_trials(trial_store, {"ft": [10.0, 50.0], "ft+migu": [30.0, 40.0]})
    _, less = open_search(search_config(tmp_path, trials=1))
    assert less.start_next() is None
    assert {label: len(less.trials_of(label)) for label in ("ft", "ft+migu")} == {"ft": 1, "ft+migu": 1}
    assert best_number(less) == 0, "the better trial is none of this search"


def test_a_small_space_holds_fewer_trials_than_planned(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["zero-shot", "ft", "ft+migu"], trials=3))
    assert trial_store.num_planned() == 1 + 2 + 3


def test_failed_trials_run_again_on_request(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], trials=1)
    _, trial_store = open_search(config)
    trial = trial_store.start_next()
    assert trial
    trial_store.record_result(trial, "the machine had no memory")
    assert trial_store.results[trial.key].reason == "the machine had no memory"
    _, later = open_search(config)
    assert later.is_done()
    later.reopen_failed()
    score_trials(later, {"ft": [64.0]})
    _, last = open_search(config)
    assert (last.results[trial.key].status, last.results[trial.key].score) == ("finished", 64.0)


def test_reference_runs_are_measured_alike(tmp_path: Path) -> None:
    """They forget nothing, what trains nothing has nothing to choose, and experts have a sequence for each task."""
    methods = ["zero-shot", "nmc", "expert", "joint"]
    _, trial_store = open_search(search_config(tmp_path, methods, forgetting_weight=1.0))
    forgetful: Matrix = [[10, 10, 10], [80, 20, 10], [60, 90, 20], [50, 70, 60]]
    while trial := trial_store.start_next():
        if len(trial.sequences) == 1:
            result = score_trial(trial_store, trial, forgetful)
            assert result.score == (60.0 if trial.method != "nmc" else 60.0 - 25.0)
        else:
            result = score_trial(trial_store, trial, 30.0, 60.0, 75.0)
            assert result.score == 55.0
    assert [len(trial_store.trials_of(method)) for method in methods] == [1, 1, 2, 2]
    assert trial_store.trials_of("nmc")[0].values == trial_store.trials_of("zero-shot")[0].values == {}


# What follows trains.


def test_methods_share_what_they_train_alike(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path))
    train_trials(trial_store)
    trained = {key: result.cost.trained for key, result in trial_store.results.items()}
    assert trained == {"ft-000": 3, "ft+migu-000": 2, "ft-001": 3, "ft+migu-001": 2}
    assert all(result.cost.tasks == 3 for result in trial_store.results.values())


def test_a_stopped_search_goes_on_and_more_trials_add_to_it(tmp_path: Path) -> None:
    space = {"training.lr": [1e-4, 1e-3, 3e-3]}
    _, whole = open_search(search_config(tmp_path / "whole", ["ft"], trials=3, searcher="tpe", space=space))
    train_trials(whole)
    config = search_config(tmp_path / "parts", ["ft"], trials=2, searcher="tpe", space=space)
    _, first = open_search(config)
    done = train_trials(first, count=1)
    second = first.start_next()  # suggested, begun, and then the process dies
    assert second
    run_sequence(second.sequences[0], until=2)
    _, resumed = open_search(config)
    assert set(resumed.results) == {done[0].key}
    assert train_trials(resumed)[0].key == second.key
    _, more = open_search(search_config(tmp_path / "parts", ["ft"], trials=3, searcher="tpe", space=space))
    train_trials(more)
    assert len(more.trials) == 3
    assert {k: t.values for k, t in more.trials.items()} == {k: t.values for k, t in whole.trials.items()}
    assert {k: r.score for k, r in more.results.items()} == {k: r.score for k, r in whole.results.items()}


def test_what_was_done_when_the_process_died_is_recorded_without_training(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], trials=1)
    _, trial_store = open_search(config)
    trial = trial_store.start_next()
    assert trial
    run_sequence(trial.sequences[0])  # and the process dies before the result is recorded
    _, resumed = open_search(config)
    resumed.record_complete()
    assert resumed.results[trial.key].status == "finished"
    assert resumed.start_next() is None


def test_a_trial_whose_states_are_missing_is_not_complete(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], trials=1)
    _, trial_store = open_search(config)
    trial = trial_store.start_next()
    assert trial
    write_scores(trial.sequences[0], steady(50.0))  # a journal alone
    _, resumed = open_search(config)
    resumed.record_complete()
    assert resumed.results == {}


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    config = search_config(tmp_path, ["ft"], training={"clip": None}, space={"training.lr": [1e-3, 1000]})
    _, trial_store = open_search(config)
    while trial := trial_store.start_next():
        with contextlib.suppress(RuntimeError):
            run_sequence(trial.sequences[0])
        trial_store.record_result(trial)
    statuses = {t.values["training.lr"]: trial_store.results[k].status for k, t in trial_store.trials.items()}
    assert statuses == {1e-3: "finished", 1000: "failed"}
    (reason,) = (result.reason for result in trial_store.results.values() if result.reason)
    assert "in task" in reason
    best = trial_store.best("ft")
    assert best
    assert best.values == {"training.lr": 1e-3}


def test_tuning_runs_where_no_test_split_exists(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "data", {"alpha": sentences("apple"), "beta": sentences("brick")})
    write_test_split(folder, "beta", sentences("cloud", 10))  # alpha, which is tuned on, has none
    _, trial_store = open_search(folder_config(tmp_path / "out", folder, ["alpha"], ["beta"], trials=1))
    train_trials(trial_store)
    assert [result.status for result in trial_store.results.values()] == ["finished"]
    log = TestAccessLog(tmp_path / "out").entries()
    assert {entry["dataset"] for entry in log} == {"beta"}
    assert {entry["by"] for entry in log} == {"plan"}
    assert all("hashes alone" in entry["why"] for entry in log)


def test_a_peek_at_a_test_split_is_refused(tmp_path: Path) -> None:
    _, trial_store = open_search(search_config(tmp_path, ["ft"], trials=1))
    trial = trial_store.start_next()
    assert trial
    stream = trial.sequences[0].open_stream()
    with pytest.raises(SealedSplit, match="sealed while tuning"):
        stream.tasks[0].read("test")
    with pytest.raises(SealedSplit):
        _ = stream.tasks[0].test_hash
    peeking = trial.sequences[0].model_copy(update={"split": "test"})
    with pytest.raises(RuntimeError, match="has changed since the experiment was planned"):
        run_sequence(peeking)
