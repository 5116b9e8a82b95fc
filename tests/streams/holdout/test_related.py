"""Which data sets are one, or of one origin."""

from __future__ import annotations

import dataclasses

import pytest

from streams import (
    RELATED,
    STATEMENTS,
    Stream,
    prove,
)
from streams.sources.folder import canonical
from tests.streams.holdout.examples import evaluation, refusal, texts, tuning


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("imdb", "stanfordnlp/imdb", True),
        ("agnews", "fancyzhx/ag_news", True),
        ("rte", "nyu-mll/glue/rte", True),
        ("a/one/default", "b/two/default", False),
    ],
)
def test_a_folder_and_the_hub_may_hold_one_data_set(one: str, other: str, same: bool) -> None:
    if same:
        assert "read one data set" in refusal("tasks", tuning(texts("a"), dataset=one), evaluation(other))
    else:
        assert prove("tasks", [tuning(texts("a"), dataset=one)], [evaluation(other)]).near_duplicates == 0


@pytest.mark.parametrize(
    ("one", "other"), [("imdb", "cornell/rotten_tomatoes"), ("mnli", "stanfordnlp/snli"), ("qqp", "quora")]
)
def test_related_data_is_known_by_its_names_on_the_hub(one: str, other: str) -> None:
    assert f"'{other}'" in refusal("tasks", tuning(texts("a"), dataset=one), evaluation(other))
    assert f"'{other}'" in refusal("tasks", tuning(texts("a"), dataset=other), evaluation(one))


def test_related_names_are_canonical_and_in_one_group() -> None:
    names = [name for group in RELATED for name in group]
    assert names == [canonical(name) for name in names]
    assert len(names) == len(set(names))
    assert {frozenset({"yelp", "amazon"}) <= group for group in RELATED} == {True, False}


def test_related_data_may_straddle_where_it_is_named() -> None:
    ours, theirs = tuning(texts("a"), dataset="amazon"), evaluation("yelp")
    for pair in (("yelp", "amazon"), ["Amazon", "Yelp"]):
        proof = prove("tasks", [ours], [theirs], [pair, ("imdb", "sst2")])
        assert proof.allowed_related_pairs == (("amazon", "yelp"),)
        assert proof.statement.startswith(STATEMENTS["tasks"])
        assert "amazon (tuning), yelp (evaluation)" in proof.statement
    assert "related data sets" in refusal("tasks", ours, theirs, [("imdb", "sst2")])
    assert "read one data set" in refusal("tasks", ours, evaluation("amazon"), [("amazon", "amazon")])


def test_a_named_pair_allows_no_other_and_is_stated_only_where_it_straddles() -> None:
    ours = tuning(texts("a"), dataset="amazon")
    assert "'amazon_polarity'" in refusal("tasks", ours, evaluation("amazon_polarity"), [("amazon", "yelp")])
    beside = dataclasses.replace(evaluation("amazon_polarity").tasks[0], name="c")
    both = Stream("y", (*evaluation("yelp").tasks, beside))
    assert "'amazon_polarity'" in refusal("tasks", ours, both, [("amazon", "yelp")])
    # only one of the two is there at all
    assert prove("tasks", [ours], [evaluation("imdb")], [("amazon", "yelp")]).allowed_related_pairs == ()


def test_what_straddles_must_be_a_pair_of_known_data_sets() -> None:
    ours, theirs = tuning(texts("a"), dataset="amazon"), evaluation("yelp")
    assert refusal("tasks", ours, theirs, [("yelp", "amazn")]) == (
        "search: allowed_related_pairs names an unknown data set 'amazn': here are amazon, yelp"
    )
    for wrong in (["yelp"], ["yelp", "amazon", "imdb"], "ab"):
        assert "is not a pair of data sets" in refusal("tasks", ours, theirs, [wrong])
