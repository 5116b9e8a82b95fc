"""What each level forbids, and what a user allows all the same."""

from __future__ import annotations

import dataclasses

import pytest

from streams import (
    LEVELS,
    STATEMENTS,
    HoldoutViolation,
    Limits,
    Stream,
    half_of_labels,
    prove,
)
from tests.streams.holdout.examples import NO_DEV, evaluation, refusal, task, texts, tuning


def test_tasks_may_not_share_a_data_set_or_a_related_one() -> None:
    assert prove("tasks", [tuning(texts("a"), dataset="yelp")], [evaluation("imdb")]).allowed_related_pairs == ()
    assert refusal("tasks", tuning(texts("a"), dataset="yelp"), evaluation("yelp")) == (
        "search: tuning stream 'x', task 'a' and evaluation stream 'y', task 'b' read one data set, 'yelp'; "
        "holdout 'tasks' forbids it"
    )
    assert refusal("tasks", tuning(texts("a"), dataset="yelp"), evaluation("amazon")) == (
        "search: tuning stream 'x', task 'a' and evaluation stream 'y', task 'b' read related data sets, 'yelp' and "
        "'amazon'; holdout 'tasks' forbids it unless `allowed_related_pairs` names the two"
    )


def test_labels_of_a_common_data_set_must_be_disjoint() -> None:
    whole = task("intents", texts("r", 80), texts("s", 20), NO_DEV, ("A one", "b", "c", "d"), "banking")
    ours, theirs = (Stream(str(half), (half_of_labels(whole, half),)) for half in (0, 1))
    proof = prove("labels", [ours], [theirs])
    assert (proof.tuning_examples, proof.evaluation_examples) == (40, 50)
    assert "read one data set" in refusal("tasks", ours, theirs)
    twin = Stream("twin", (dataclasses.replace(ours.tasks[0], name="again", limits=Limits(row_half=1)),))
    first = ours.tasks[0].labels[0]
    assert refusal("labels", ours, twin) == (
        "search: tuning stream '0', task 'intents' and evaluation stream 'twin', task 'again' have the label "
        f"'{first}' of data set 'banking'; holdout 'labels' forbids it"
    )


def test_labels_are_compared_as_answers_are() -> None:
    ours = Stream("x", (task("a", texts("a"), labels=("Very Good.", "bad"), dataset="d"),))
    same = Stream("y", (task("b", texts("b"), texts("c"), labels=("very good", "poor"), dataset="d"),))
    other = Stream("z", (dataclasses.replace(same.tasks[0], dataset="e"),))
    assert "have the label 'Very Good.'" in refusal("labels", ours, same)
    assert prove("labels", [ours], [other]).level == "labels"


def test_orders_must_differ() -> None:
    def stream(name: str, order: str, half: int) -> Stream:
        limits = Limits(row_half=half)
        return Stream(name, tuple(task(letter, texts(letter), texts(f"t{letter}"), limits) for letter in order))

    assert prove("orders", [stream("one", "pqr", 0)], [stream("two", "qpr", 1)]).level == "orders"
    assert refusal("orders", stream("one", "pqr", 0), stream("two", "pqr", 1)) == (
        "search: tuning stream 'one' and evaluation stream 'two' have the same order of data sets; "
        "holdout 'orders' forbids it"
    )
    renamed = [dataclasses.replace(of, name=f"my {of.name}") for of in stream("two", "pqr", 1).tasks]
    assert "the same order of data sets" in refusal("orders", stream("one", "pqr", 0), Stream("two", tuple(renamed)))
    assert "hold the same text" in refusal("orders", stream("one", "pqr", 0), stream("two", "qpr", 0))
    with pytest.raises(HoldoutViolation, match="'three' and evaluation stream 'four'"):
        prove("orders", [stream("one", "pqr", 0), stream("three", "rqp", 0)], [stream("four", "rqp", 1)])


def test_without_a_holdout_nothing_is_compared() -> None:
    ours = evaluation("yelp").sealed()
    proof = prove("none", [ours], [evaluation("yelp")])
    assert (proof.tuning_examples, proof.evaluation_examples, proof.near_duplicates) == (30, 40, 0)
    assert "usual practice" in proof.statement
    assert "proves nothing" in proof.statement


def test_levels_and_sides_must_be_there() -> None:
    assert tuple(STATEMENTS) == LEVELS == ("tasks", "labels", "orders", "none")
    assert len(set(STATEMENTS.values())) == 4
    with pytest.raises(HoldoutViolation, match="unknown holdout 'rows': one of tasks, labels, orders, none"):
        prove("rows", [tuning(texts("a"))], [evaluation()])  # type: ignore[arg-type]
    with pytest.raises(HoldoutViolation, match="there is no tuning stream"):
        prove("tasks", [], [evaluation()])
    with pytest.raises(HoldoutViolation, match="there is no evaluation stream"):
        prove("tasks", [tuning(texts("a"))], [])


def test_open_answers_cannot_be_shown_to_have_other_labels() -> None:
    ours = Stream("x", (task("a", texts("a"), dataset="d"),))
    theirs = Stream("y", (dataclasses.replace(task("b", texts("b"), texts("c"), dataset="d"), labels=()),))
    assert "'d', and not both have a label set; holdout 'labels' forbids it" in refusal("labels", ours, theirs)
    assert "'d', and not both have a label set" in refusal("labels", theirs, ours)


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


def test_guests_are_of_a_data_set_too() -> None:
    """What is mixed into a task is trained on, so it may be of no data set of the other side."""
    guest = task("g", texts("g"), dataset="imdb")
    ours = tuning(texts("a"), dataset="yelp")
    mixed = Stream("x", (ours.tasks[0].part("a", guest_tasks=(guest,)),))
    assert prove("tasks", [ours], [evaluation("sst2")]).level == "tasks"
    assert (
        "tuning stream 'x', task 'g' and evaluation stream 'y', task 'b' read related data sets, 'imdb' and 'sst2'"
        in (refusal("tasks", mixed, evaluation("sst2")))
    )
    assert prove("tasks", [mixed], [evaluation("sst2")], [["imdb", "sst2"]]).allowed_related_pairs == (
        ("imdb", "sst2"),
    )
    # and their texts are compared as those of the task's own rows
    shared = task("g", texts("b"), dataset="other")
    guests = Stream("x", (ours.tasks[0].part("a", guest_tasks=(shared,), guests=lambda own: shared.read("train")),))
    assert "hold the same text; holdout 'tasks' forbids it" in refusal("tasks", guests, evaluation("sst2"))
