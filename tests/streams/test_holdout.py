"""The proof that tuning and evaluation are apart: planted overlaps, each level's rules, near-duplicates by hand."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from streams import (
    LEVELS,
    RELATED,
    STATEMENTS,
    Example,
    HoldoutViolation,
    Level,
    Limits,
    Split,
    Stream,
    Task,
    folder_stream,
    half_of_labels,
    named_stream,
    prove,
)
from streams.shingles import ShingleIndex, shingles
from streams.sources.folder import canonical

LABELS = ("yes", "no")
DEFAULT = Limits()
NO_DEV = Limits(dev_fraction=0)


def texts(topic: str, count: int = 30) -> list[str]:
    """Texts that have no five words in common with one another."""
    return [" ".join(f"{topic}{i}{letter}" for letter in "abcdefgh") for i in range(count)]


def task(
    name: str,
    train: Sequence[str],
    test: Sequence[str] = (),
    limits: Limits = DEFAULT,
    labels: tuple[str, ...] = LABELS,
    dataset: str = "",
) -> Task:
    def load(split: Literal["train", "test"]) -> list[Example]:
        if split == "test" and not test:
            raise AssertionError("the test split was loaded")
        return [Example(text, labels[i % len(labels)]) for i, text in enumerate(train if split == "train" else test)]

    return Task(name, "", "", labels, "here", load, limits, dataset)


def tuning(train: Sequence[str], limits: Limits = NO_DEV, dataset: str = "") -> Stream:
    """One task whose loader fails where the test split is asked for."""
    return Stream("x", (task("a", train, limits=limits, dataset=dataset),))


def evaluation(dataset: str = "", limits: Limits = DEFAULT) -> Stream:
    return Stream("y", (task("b", texts("b"), texts("c", 10), limits, dataset=dataset),))


def refusal(level: Level, ours: Stream, theirs: Stream, allowed_related_pairs: Sequence[Sequence[str]] = ()) -> str:
    with pytest.raises(HoldoutViolation) as caught:
        prove(level, [ours], [theirs], allowed_related_pairs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("level", ["tasks", "labels", "orders"])
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_planted_text_is_refused_with_both_places(split: Split, level: Level) -> None:
    theirs = evaluation()
    stolen = theirs.tasks[0].read(split)[2]
    ours = tuning([*texts("a", 11), stolen.text.upper().replace(" ", ",  ")])
    assert refusal(level, ours, theirs) == (
        f"search: tuning stream 'x', task 'a', train row 12 and evaluation stream 'y', task 'b', {split} row {stolen.row} "
        f"hold the same text; holdout '{level}' forbids it"
    )


def test_a_planted_text_in_the_dev_split_of_tuning_is_refused() -> None:
    theirs = evaluation()
    (stolen, *_) = theirs.tasks[0].read("test")
    for seed in range(20):
        ours = tuning([*texts("a", 11), stolen.text], Limits(dev_fraction=0.5, seed=seed))
        split = "dev" if stolen.text in [e.text for e in ours.tasks[0].read("dev")] else "train"
        assert f"task 'a', {split} row 12 and" in refusal("tasks", ours, theirs)
        if split == "dev":
            return
    raise AssertionError("no seed puts the row into dev")


@pytest.mark.parametrize(("count", "more"), [(1, ""), (2, " (1 more such text)"), (4, " (3 more such texts)")])
def test_how_many_texts_are_common_is_said(count: int, more: str) -> None:
    stolen = texts("b")[:count]
    message = refusal("tasks", tuning([*stolen, *stolen, *texts("a", 5)]), evaluation())
    assert message.endswith(f"holdout 'tasks' forbids it{more}")


def test_what_is_apart_is_counted_and_test_is_never_asked_for_while_tuning() -> None:
    announced: list[str] = []
    ours = [tuning([*texts("a"), "A0a, a0b a0c a0d a0e a0f a0g a0h"], DEFAULT).sealed()]
    theirs = [evaluation().watched(lambda t: announced.append(t.name))]
    proof = prove("tasks", ours, theirs)
    assert dataclasses.asdict(proof) == {
        "level": "tasks",
        "statement": STATEMENTS["tasks"],
        "tuning_examples": 30,
        "evaluation_examples": 40,
        "near_duplicates": 0,
        "near_duplicate_rate": 0.0,
        "worst": (),
        "allowed_related_pairs": (),
    }
    assert announced == ["b"]


def test_a_split_that_is_not_used_is_not_compared() -> None:
    """The proof is about the rows that are trained on, which limits choose."""
    theirs = evaluation(limits=Limits(max_train=3, dev_fraction=0))
    assert prove("tasks", [tuning(texts("a"))], [theirs]).evaluation_examples == 13


TEN = "a b c d e f g h i j"  # six shingles


@pytest.mark.parametrize(
    ("text", "similarity"),
    [
        (TEN, 1.0),
        ("a b c d e f g h i z", 5 / 7),  # five of six are shared: 5 / (6 + 6 - 5)
        ("a b c d z f g h i j", 1 / 11),  # only the last run of five is shared
        ("a b c d e f g", 3 / 6),  # three of six
        ("a b c d e f", 2 / 6),
        ("a b c d", 0.0),  # a short text is one run of its own
        ("j i h g f e d c b a", 0.0),
    ],
)
def test_similarity_by_hand(text: str, similarity: float) -> None:
    assert ShingleIndex([TEN, "k l m n"]).nearest(text) == (pytest.approx(similarity), 0 if similarity else -1)


def test_shingles() -> None:
    assert [len(shingles(text)) for text in ("", "a", "a b c d", "a b c d e", TEN, "a a a a a a a a")] == [
        1,
        1,
        1,
        1,
        6,
        1,
    ]
    assert shingles("a b c d") != shingles("a b c e")


def test_stock_phrases_are_not_followed_but_count() -> None:
    index = ShingleIndex([f"one two three four five w{i} x{i} y{i}" for i in range(201)])
    # "one two three four five" is in 201 texts; it and two more runs are shared: 3 / (4 + 4 - 3)
    assert index.nearest("one two three four five w7 x7 z") == (3 / 5, 7)
    assert index.nearest("one two three four five q q q") == (0.0, -1)
    few = ShingleIndex([f"one two three four five w{i} x{i} y{i}" for i in range(200)])
    assert few.nearest("one two three four five q q q") == (1 / 7, 0)


def test_near_duplicates_are_counted_and_the_closest_are_shown() -> None:
    ours = tuning([TEN, "k l m n o p q r s t u v w", "only here"])
    near = [
        "a b c d e f g",
        "A b c d e f g h i z",
        "k l m n o p q r s t u v z",
        "k l m n o p q r s t u",
        "x k l m n o p",
    ]
    theirs = Stream("y", (task("b", texts("b"), [*texts("c", 2), *near], NO_DEV),))
    proof = prove("tasks", [ours], [theirs])
    # by hand: 3/6, 5/7, 8/10, 7/9, and 2/10, which is not near
    assert (proof.near_duplicates, proof.evaluation_examples) == (4, 37)
    assert proof.near_duplicate_rate == 4 / 37
    assert proof.worst == (
        "task 'a' train row 2 ~ task 'b' test row 5 (0.80)",
        "task 'a' train row 2 ~ task 'b' test row 6 (0.78)",
        "task 'a' train row 1 ~ task 'b' test row 4 (0.71)",
    )


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


def test_what_straddles_must_be_a_pair_of_known_data_sets() -> None:
    ours, theirs = tuning(texts("a"), dataset="amazon"), evaluation("yelp")
    assert refusal("tasks", ours, theirs, [("yelp", "amazn")]) == (
        "search: allowed_related_pairs names an unknown data set 'amazn': here are amazon, yelp"
    )
    for wrong in (["yelp"], ["yelp", "amazon", "imdb"], "ab"):
        assert "is not a pair of data sets" in refusal("tasks", ours, theirs, [wrong])


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
    assert "hold the same text" in refusal("orders", stream("one", "pqr", 0), stream("two", "qpr", 0))
    with pytest.raises(HoldoutViolation, match="'three' and evaluation stream 'four'"):
        prove("orders", [stream("one", "pqr", 0), stream("three", "rqp", 0)], [stream("four", "rqp", 1)])


def test_without_a_holdout_nothing_is_compared() -> None:
    ours = evaluation("yelp").sealed()
    proof = prove("none", [ours], [evaluation("yelp")])
    assert (proof.tuning_examples, proof.evaluation_examples, proof.near_duplicates) == (30, 40, 0)
    assert "usual practice" in proof.statement
    assert "proves nothing" in proof.statement


@pytest.mark.parametrize("level", LEVELS)
def test_a_proof_is_plain_data(level: Level) -> None:
    proof = prove(level, [tuning(texts("a"), dataset="yelp")], [evaluation("amazon")], [("yelp", "amazon")])
    assert json.loads(json.dumps(proof.as_dict())) == proof.as_dict()
    assert proof.as_dict()["allowed_related_pairs"] == [["yelp", "amazon"]]
    assert proof.as_dict()["statement"].startswith(STATEMENTS[level])


def test_levels_and_sides_must_be_there() -> None:
    assert tuple(STATEMENTS) == LEVELS == ("tasks", "labels", "orders", "none")
    assert len(set(STATEMENTS.values())) == 4
    with pytest.raises(HoldoutViolation, match="unknown holdout 'rows': one of tasks, labels, orders, none"):
        prove("rows", [tuning(texts("a"))], [evaluation()])  # type: ignore[arg-type]
    with pytest.raises(HoldoutViolation, match="there is no tuning stream"):
        prove("tasks", [], [evaluation()])
    with pytest.raises(HoldoutViolation, match="there is no evaluation stream"):
        prove("tasks", [tuning(texts("a"))], [])


def test_ten_thousand_texts_take_seconds() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    ours, theirs = ([" ".join(rng.choices(words, k=100)) for _ in range(10_000)] for _ in range(2))
    theirs[:50] = [text.rsplit(" ", 10)[0] for text in ours[:50]]
    start = time.monotonic()
    index = ShingleIndex(ours)
    near = [number for similarity, number in map(index.nearest, theirs) if similarity >= 0.5]
    assert near == list(range(50))
    assert time.monotonic() - start < 30


def test_the_generated_streams_are_apart() -> None:
    proof = prove("tasks", [named_stream("embedded-tuning").sealed()], [named_stream("embedded")])
    assert proof.near_duplicates == 0
    assert proof.tuning_examples > 3900
    assert proof.evaluation_examples > 4800


def test_the_real_benchmark_split_is_apart(benchmark_folder: Path) -> None:
    ours = named_stream("benchmark-tuning", folder=benchmark_folder).sealed()
    proof = prove("tasks", [ours], [named_stream("benchmark-evaluation", folder=benchmark_folder)])
    assert (proof.tuning_examples, proof.evaluation_examples, proof.near_duplicates) == (18_997, 34_530, 0)


def test_a_real_text_on_two_sides_is_found(benchmark_folder: Path) -> None:
    """The one text that the tuning stream of the benchmark leaves out."""
    ours, theirs = (folder_stream(name, benchmark_folder, [name]) for name in ("yelp", "SST-2"))
    assert refusal("tasks", ours, theirs) == (
        "search: tuning stream 'yelp', task 'yelp', train row 114 and evaluation stream 'SST-2', task 'SST-2', "
        "train row 1655 hold the same text; holdout 'tasks' forbids it"
    )
