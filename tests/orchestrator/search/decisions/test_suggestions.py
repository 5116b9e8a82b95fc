"""The next trial is a pure function of the seed, its number and the trials before."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.search.decisions import suggestions
from orchestrator.search.decisions.suggestions import Sampler, TrialRecord, is_scale
from orchestrator.search.space import Space

SPACE: Space = {
    "training.lr": Dimension(low=1e-5, high=1e-1, log=True),
    "migu.ratio": Dimension(values=(0.1, 0.3, 0.5, 0.7, 0.9)),
}


def search(searcher: str) -> SearchConfig:
    return SearchConfig.model_validate({"streams": ["embedded-tuning"], "searcher": searcher, "seed": 5})


def score(values: dict[str, Any]) -> float:
    """Best at lr 1e-3 and ratio 0.5."""
    return -((math.log10(values["training.lr"]) + 3) ** 2) - 10 * (values["migu.ratio"] - 0.5) ** 2


def run(searcher: str, count: int, records: list[TrialRecord] | None = None, space: Space = SPACE) -> list[TrialRecord]:
    """Trials one after the other, beginning after those that are given."""
    records = list(records or [])
    while len(records) < count:
        suggestion = Sampler(search(searcher), space).suggest(len(records), records)
        if suggestion is None:
            break
        records.append(TrialRecord(suggestion.values, score(suggestion.values), notes=suggestion.notes))
    return records


@pytest.mark.parametrize("searcher", ["random", "tpe", "cma"])
def test_a_search_that_was_stopped_goes_on_the_same(searcher: str) -> None:
    whole = run(searcher, 14)
    resumed = run(searcher, 14, records=[TrialRecord(p.values, p.score, notes=p.notes) for p in whole[:6]])
    assert [p.values for p in resumed] == [p.values for p in whole]
    assert len({tuple(p.values.values()) for p in whole}) == 14, "nothing is tried twice"


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe", "cma"])
def test_a_sampler_that_lives_on_suggests_what_a_new_one_would(searcher: str) -> None:
    """In rounds of two, in which the first trial runs while the second is suggested; one of all fails."""
    space = SPACE
    if searcher == "grid":
        space = {
            "training.lr": Dimension(values=(1e-4, 1e-3, 1e-2)),
            "migu.ratio": Dimension(values=(0.1, 0.3, 0.5, 0.7)),
        }
    living = Sampler(search(searcher), space)
    records: list[TrialRecord] = []
    for number in range(12):
        suggestion = living.suggest(number, records)
        assert suggestion == Sampler(search(searcher), space).suggest(number, records)
        assert suggestion
        records.append(TrialRecord(suggestion.values, None, running=True, notes=suggestion.notes))
        if number % 2:
            for ended in (number - 1, number):
                result = None if ended == 3 else score(records[ended].values)
                records[ended] = replace(records[ended], score=result, running=False)


@pytest.mark.parametrize(
    ("searcher", "made", "times"), [("random", "random_draws", 1), ("grid", "grid", 1), ("tpe", "_told_trial", 9)]
)
def test_what_was_drawn_or_told_once_is_not_again(
    searcher: str, made: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten trials: the draws are begun once, and Optuna's form of each of the nine before the last is made once."""
    original = getattr(suggestions, made)
    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(suggestions, made, counted)
    space = SPACE
    if searcher == "grid":
        space = {
            "training.lr": Dimension(values=(1e-4, 1e-3, 1e-2)),
            "migu.ratio": Dimension(values=(0.1, 0.3, 0.5, 0.7)),
        }
    sampler = Sampler(search(searcher), space)
    before = len(calls)
    records: list[TrialRecord] = []
    for number in range(10):
        suggestion = sampler.suggest(number, records)
        assert suggestion
        records.append(TrialRecord(suggestion.values, score(suggestion.values), notes=suggestion.notes))
    assert len(calls) == times
    if searcher == "tpe":
        # of a trial that has changed, and of those after it, the form is made anew, and once more
        records[5] = replace(records[5], score=0.0)
        sampler.suggest(10, records)
        assert len(calls) == 9 + 5
        sampler.suggest(10, records)
        assert len(calls) == 9 + 5
    # those of draws are begun with the sampler
    assert before == (0 if searcher == "tpe" else 1)


@pytest.mark.parametrize("searcher", ["tpe", "cma"])
def test_samplers_learn_from_what_was_tried(searcher: str) -> None:
    numbers = {"training.lr": SPACE["training.lr"], "migu.ratio": Dimension(low=0.05, high=0.95)}
    late = [p.score for p in run(searcher, 40, space=numbers)[30:] if p.score is not None]
    random = [p.score for p in run("random", 40, space=numbers)[30:] if p.score is not None]
    assert sum(late) / 10 > sum(random) / 10


def test_the_history_matters_to_tpe() -> None:
    records = run("tpe", 12)
    flipped = [TrialRecord(record.values, -(record.score or 0.0)) for record in records]
    suggestion = Sampler(search("tpe"), SPACE).suggest(12, records)
    other = Sampler(search("tpe"), SPACE).suggest(12, flipped)
    assert suggestion
    assert other
    assert suggestion.values != other.values


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe", "cma"])
def test_a_small_space_is_tried_whole_and_then_ends(searcher: str) -> None:
    space = {"training.lr": Dimension(values=(1e-4, 1e-3)), "migu.ratio": Dimension(values=(0.1, 0.3, 0.5))}
    tried = run(searcher, 10, space=space)
    assert len(tried) == len({tuple(p.values.values()) for p in tried}) == 6


def test_trials_that_run_or_failed_are_no_obstacle() -> None:
    records = [
        *run("tpe", 11),
        TrialRecord({"training.lr": 0.05, "migu.ratio": 0.1}, None),
        TrialRecord({"training.lr": 0.002, "migu.ratio": 0.9}, None, True),
    ]
    assert Sampler(search("tpe"), SPACE).suggest(13, records)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 2.5, 3), True),
        ((3, 1), False),
        ((1,), False),
        ((True, False), False),
        ((1, "two"), False),
        ((1, None), False),
    ],
)
def test_numbers_in_rising_order_are_a_scale(values: tuple[Any, ...], expected: bool) -> None:
    assert is_scale(Dimension(values=values)) is expected
