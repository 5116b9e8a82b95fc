"""The frozen choice: what it holds, and that the evaluation takes no other values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.search.choice import (
    choices_made,
    evaluation_sequences,
    freeze,
    frozen_config,
    read_chosen,
    record_once,
)
from orchestrator.search.definition import Search, content_hash
from orchestrator.search.trial_store import TrialStore
from orchestrator.store.journal import Tail
from orchestrator.store.records.search_events import SearchChosen, SearchFinished, SearchStarted
from tests.orchestrator.search.searches import open_search, score_trials, search_config

SCORES = {"ft": [41.0, 73.5], "ft+migu": [66.0, 58.0]}


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Search, TrialStore]:
    search, trial_store = open_search(search_config(tmp_path))
    score_trials(trial_store, SCORES)
    return search, trial_store


def test_the_choice_has_each_methods_best_values(scored: tuple[Search, TrialStore]) -> None:
    search, trial_store = scored
    chosen = freeze(search, trial_store)
    for label, number, score in (("ft", 1, 73.5), ("ft+migu", 0, 66.0)):
        method = chosen["methods"][label]
        assert (method["trial"], method["score"]) == (number, score)
        assert method["values"] == trial_store.trials[f"{label}-{number:03d}"].values
    assert chosen["missing"] == []
    assert chosen["trials_sha256"] == trial_store.fingerprint()
    assert read_chosen(search) == chosen
    assert freeze(search, trial_store) == chosen, "the same choice again is no other choice"
    assert choices_made(search.folder) == [chosen["sha256"]]


def test_the_frozen_configuration_has_the_chosen_values(scored: tuple[Search, TrialStore]) -> None:
    search, trial_store = scored
    chosen = freeze(search, trial_store)
    frozen = frozen_config(search.config, chosen)
    assert [method.label for method in frozen.methods] == ["ft", "ft+migu"]
    assert frozen.training_for(frozen.methods[0]).lr == chosen["methods"]["ft"]["values"]["training.lr"]
    assert frozen.methods[1].plugins[0].settings["ratio"] == chosen["methods"]["ft+migu"]["values"]["migu.ratio"]
    sequences = evaluation_sequences(search, frozen, chosen)
    assert [(s.method.label, s.stream.name, s.seed, s.split) for s in sequences] == [
        ("ft", "embedded", 7, "test"),
        ("ft+migu", "embedded", 7, "test"),
    ]
    two = frozen.model_copy(update={"seeds": (7, 8)})
    assert [s.seed for s in evaluation_sequences(search, two, chosen)] == [7, 8, 7, 8]
    (root, evaluation) = sequences[0].parents
    assert root == ("search:small", "small: search")
    assert evaluation == (f"search:small/evaluation-{chosen['sha256'][:8]}", "evaluation")


def test_what_is_not_searched_keeps_its_value(tmp_path: Path) -> None:
    search, trial_store = open_search(search_config(tmp_path, select="first-task"))
    score_trials(trial_store, SCORES)
    assert all(trial.num_tasks == 1 for trial in trial_store.trials.values())
    entry = frozen_config(search.config, freeze(search, trial_store)).methods[1]
    assert entry.plugins[0].settings["ratio"] == 0.3


def test_a_method_without_a_finished_trial_is_missing(tmp_path: Path) -> None:
    search, trial_store = open_search(search_config(tmp_path))
    score_trials(trial_store, {"ft": ["the loss is nan"] * 2, "ft+migu": [66.0, 58.0]})
    chosen = freeze(search, trial_store)
    assert chosen["missing"] == ["ft"]
    assert list(chosen["methods"]) == ["ft+migu"]
    assert [method.label for method in frozen_config(search.config, chosen).methods] == ["ft+migu"]


def test_the_evaluation_takes_no_values_but_the_chosen(scored: tuple[Search, TrialStore]) -> None:
    search, trial_store = scored
    written = freeze(search, trial_store)
    file = search.folder / "chosen.json"
    file.write_text(file.read_text().replace('"training.lr": 0.00', '"training.lr": 0.01'))
    with pytest.raises(UserError, match="not the values that the search chose"):
        freeze(search, trial_store)
    with pytest.raises(UserError, match="takes no others"):
        read_chosen(search)
    written["methods"]["ft"]["values"] = {"training.lr": 0.5}
    del written["sha256"]
    file.write_text(json.dumps(written | {"sha256": content_hash(written)}))
    with pytest.raises(UserError, match="takes no others"):  # sound in itself, but not of this search
        read_chosen(search)
    file.unlink()
    freeze(search, trial_store)
    assert read_chosen(search)["methods"]["ft"]["values"] != {"training.lr": 0.5}


def test_a_process_that_dies_while_it_freezes_locks_nothing(tmp_path: Path) -> None:
    search, trial_store = open_search(search_config(tmp_path, ["ft"], trials=1))
    score_trials(trial_store, SCORES)
    first = freeze(search, trial_store)
    more, trial_store = open_search(search_config(tmp_path, ["ft"], trials=2))
    score_trials(trial_store, SCORES)
    second = freeze(more, trial_store)  # recorded and written; the plots and what follows never came
    assert second["methods"]["ft"]["trial"] == 1
    assert freeze(more, trial_store) == second
    assert choices_made(search.folder) == [first["sha256"], second["sha256"]]


def test_a_fact_is_recorded_where_it_is_not_the_last_word(tmp_path: Path) -> None:
    """What was so, was changed and is so again is said three times, and the choice that came back is one choice."""
    for word in ("one", "one", "two", "one"):
        record_once(tmp_path, SearchFinished(summary={"said": word}))
        record_once(tmp_path, SearchChosen(sha256=word))
    said = [event.summary["said"] for event in Tail(tmp_path).new_events() if isinstance(event, SearchFinished)]
    assert said == ["one", "two", "one"]
    assert choices_made(tmp_path) == ["one", "two"]


def test_a_search_that_was_started_anew_says_again_that_it_ended(tmp_path: Path) -> None:
    """With more trials than its space has points, of which none is new: all that it says is what it said before."""
    for trials in (2, 2, 3):
        record_once(tmp_path, SearchStarted(config={"trials": trials}))
        record_once(tmp_path, SearchChosen(sha256="one"))
        record_once(tmp_path, SearchFinished(summary={}))
    names = [event.name for event in Tail(tmp_path).new_events()]
    assert names == ["search_started", "search_chosen", "search_finished", "search_started", "search_finished"]
