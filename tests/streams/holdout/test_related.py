"""Which data sets are one, or of one origin."""

from __future__ import annotations

import pytest

from streams import (
    RELATED,
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
