"""What is refused before the first trial, and what names a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.search.definition import content_hash, prepare
from orchestrator.store.access_log import TestAccessLog
from tests.orchestrator.search.searches import (
    EVALUATION,
    TUNING,
    folder_config,
    search_config,
    sentences,
    write_tasks,
    write_test_split,
)


def plant_overlap(tmp_path: Path, split: str) -> RunConfig:
    """A sentence of the tuning task that lies, written differently, in a split of the evaluation task too."""
    tuning_example = ("This very sentence, lies on BOTH sides", "good")
    evaluation_example = ("this very sentence lies on both sides", "bad")
    tasks = {"alpha": [tuning_example, *sentences("apple")], "beta": sentences("brick")}
    test = sentences("cloud", 10)
    if split == "train":
        tasks["beta"].append(evaluation_example)
    else:
        test.append(evaluation_example)
    folder = write_tasks(tmp_path / "data", tasks)
    write_test_split(folder, "beta", test)
    config = folder_config(tmp_path / "out", folder, ["alpha"], ["beta"])
    assert config.search
    wide = {"max_train": 24, "max_test": None, "dev_fraction": 0.2}
    streams = tuple(stream.model_copy(update=wide) for stream in config.streams)
    tuning = tuple(stream.model_copy(update=wide) for stream in config.search.streams)
    search = config.search.model_copy(update={"streams": tuning})
    return config.model_copy(update={"streams": streams, "search": search})


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_planted_overlap_is_refused_with_both_rows(tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(plant_overlap(tmp_path, split), gpu=False)
    message = str(caught.value)
    assert "'alpha', " in message
    assert "row 1 " in message
    assert f"'beta', {split} row" in message or (split == "train" and "'beta', dev row" in message)
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert TestAccessLog(tmp_path / "out").entries() == [], "what is refused leaves nothing in the log"


def test_corpora_are_not_tuned_on(tmp_path: Path) -> None:
    corpora = [{"name": "embedded-cpt-tuning", "first": 1, "max_train": 2}]
    config = search_config(tmp_path, ["ft"]).model_dump(mode="json")
    config |= {"model": {"name": "tiny-llama"}, "search": config["search"] | {"streams": corpora}}
    with pytest.raises(UserError) as caught:
        prepare(RunConfig.model_validate(config), gpu=False)
    assert str(caught.value) == (
        "search.streams: task 'fen' of stream 'embedded-cpt-tuning' is a corpus; a search tunes on tasks with answers"
    )


def test_data_sets_on_both_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holdout"):
        prepare(search_config(tmp_path, ["ft"], evaluated=[TUNING]), gpu=False)
    allowed = prepare(search_config(tmp_path, ["ft"], evaluated=[TUNING], holdout="none"), gpu=False)
    assert "usual practice" in allowed.proof.statement


def test_an_evaluation_seed_is_no_tuning_seed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="7 is an evaluation seed too"):
        search_config(tmp_path, seeds=[7])


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ({"space": {"migu.ration": [0.1]}}, "Did you mean 'migu.ratio'"),
        ({"searcher": "grid", "space": {"training.lr": {"low": 1e-4, "high": 1e-2}}}, "a grid needs listed values"),
        ({"streams": [{**TUNING, "dev_fraction": 0.0}]}, "has no dev split"),
        ({"metric": "aa_options"}, "does not apply to models that generate"),
        ({"scheduler": "asha", "grace": 3}, "3 is not below the 3 tasks"),
        ({"searcher": "grid", "trials": 1}, "the grid of ft has 2 points, but there are 1 trials"),
        (
            {"space": {"training.epochs": [1, 2]}},
            "search.space.training.epochs: methods would choose different numbers",
        ),
        ({"space": {"training.budget": [3, 4]}}, "search.space: unknown parameter 'training.budget'"),
        (
            {"space": {"training.schedule": ["infinite"], "training.warmup": {"low": 0.1, "high": 0.2}}},
            "infinite.cooldown",
        ),
        ({"space": {"training.global_batch": [8, 12], "training.micro_batch": [8]}}, "not a multiple of micro_batch"),
    ],
)
def test_a_search_is_checked_before_the_first_trial(tmp_path: Path, search: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(search_config(tmp_path, **search), gpu=False)
    assert part in str(caught.value)


def test_schedules_are_checked_with_each_method(tmp_path: Path) -> None:
    space = {"training.schedule": ["cosine", "infinite"]}
    assert prepare(search_config(tmp_path, ["ft"], space=space), gpu=False).method_searches
    with pytest.raises(UserError, match="'infinite' cannot be combined with 'merge'"):
        prepare(search_config(tmp_path, ["ft", "average"], space=space), gpu=False)


def test_unequal_memories_are_refused_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'replay' keeps 2 %.*'conpet' 100 %"):
        prepare(search_config(tmp_path, ["replay", "conpet"]), gpu=False)
    equal = {"preset": "conpet", "plugins": [{"name": "conpet", "fraction": 0.02}]}
    search = prepare(search_config(tmp_path, ["ft", "replay", equal]), gpu=False)
    assert search.description()["memory"] == {"replay": 0.02, "conpet": 0.02}


def test_rates_at_which_a_method_may_learn_nothing_are_said(tmp_path: Path) -> None:
    lines: list[str] = []
    space = {"training.lr": [1e-4, 3e-4]}
    prepare(search_config(tmp_path, ["ft", "coso"], space=space), gpu=False, warn=lines.append)
    (line,) = [line for line in lines if "rates" in line]
    assert line.startswith("coso: most rates of the search lie outside the rates of 'coso', 0.001 to 0.01")


def test_first_task_selection_keeps_what_acts_on_the_first_task(tmp_path: Path) -> None:
    """MIGU masks nothing in the first task, so its ratio is not searched there."""
    methods = ["ft", "ft+migu"]
    search = prepare(search_config(tmp_path, methods, select="first-task"), gpu=False)
    assert {m.label: list(m.space) for m in search.method_searches} == {
        "ft": ["training.lr"],
        "ft+migu": ["training.lr"],
    }
    whole = prepare(search_config(tmp_path, methods), gpu=False)
    assert list(whole.method_searches[1].space) == ["training.lr", "migu.ratio"]


def test_the_definition_follows_what_is_tried_and_not_how_often(tmp_path: Path) -> None:
    def definition(**search: Any) -> str:
        return prepare(search_config(tmp_path, ["ft"], **search), gpu=False).definition

    first = definition()
    assert definition(trials=9, max_concurrent=1, trial_tasks=100) == first
    changes: list[dict[str, Any]] = [
        {"seeds": [2]},
        {"space": {"training.lr": [1e-3, 5e-3]}},
        {"forgetting_weight": 0.1},
        {"streams": [{**TUNING, "max_dev": 11}]},
        {"searcher": "tpe"},
    ]
    definitions = {definition(**change) for change in changes}
    assert len(definitions | {first}) == len(changes) + 1


def test_the_description_has_the_streams_and_spaces(tmp_path: Path) -> None:
    description = prepare(search_config(tmp_path, forgetting_weight=0.5), gpu=False).description()
    assert description["tuning_streams"] == ["embedded-tuning"]
    assert description["forgetting_weight"] == 0.5
    assert description["spaces"]["ft+migu"]["migu.ratio"]["values"] == [0.3, 0.6]
    assert len(description["datasets"]["tuning"]) == len(description["datasets"]["evaluation"]) == 3
    assert not set(description["datasets"]["tuning"]) & set(description["datasets"]["evaluation"])


def test_a_hash_knows_no_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_one_order_of_classes_for_all_seeds_is_warned_of(tmp_path: Path) -> None:
    def warnings(order: str) -> list[str]:
        parts = {"labels_per_task": 2, "class_order": order}
        tuning = {**TUNING, **parts}
        evaluated = {**EVALUATION, **parts}
        said: list[str] = []
        config = search_config(tmp_path, ["ft"], evaluated=[evaluated], streams=[tuning], holdout="labels")
        prepare(config, gpu=False, warn=said.append)
        return [line for line in said if "class_order" in line]

    assert len(warnings("listed")) == 2
    assert "class_order: by-seed gives each seed its own" in warnings("listed")[0]
    assert warnings("by-seed") == []


def test_every_order_of_classes_that_a_seed_draws_is_proven(tmp_path: Path) -> None:
    """Each seed reads other rows, since each has other labels in a task of 24 examples."""
    parts = {"labels_per_task": 2, "class_order": "by-seed"}
    tuning = [{**TUNING, **parts}]
    evaluated = [{**EVALUATION, **parts}]
    one = prepare(search_config(tmp_path, ["ft"], evaluated=evaluated, streams=tuning, seeds=[1]), gpu=False)
    three = prepare(search_config(tmp_path, ["ft"], evaluated=evaluated, streams=tuning, seeds=[1, 2, 3]), gpu=False)
    assert three.proof.tuning_examples > one.proof.tuning_examples
    assert three.proof.evaluation_examples == one.proof.evaluation_examples


def test_a_space_for_a_method_that_is_not_there_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    space = {"training.lr": [1e-3, 1e-4], "migu.ratio": [0.1, 0.3], "random_mask.ratio": [0.1, 0.3]}
    prepare(search_config(tmp_path, ["ft", "ft+migu"], space=space), gpu=False, warn=said.append)
    assert said == ["search.space.random_mask.ratio: no method of this search has it; it is left out"]


def test_scores_in_different_units_are_refused(tmp_path: Path) -> None:
    mixed = {**EVALUATION, "scorer": {"reviews": "perplexity"}}
    with pytest.raises(UserError, match=r"search\.metric: scores are in different units: .* no mean over them"):
        prepare(search_config(tmp_path, ["ft"], evaluated=[mixed]), gpu=False)
    search = prepare(search_config(tmp_path, ["ft"], scorer="perplexity"), gpu=False)
    assert search.description()["measure"] == {"unit": "perplexity", "better": "lower", "digits": 2}
