"""The proof that tuning and evaluation are apart: planted overlaps, and what is counted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from streams import (
    LEVELS,
    STATEMENTS,
    FolderSource,
    Level,
    Limits,
    Split,
    Stream,
    named_stream,
    prove,
)
from tests.streams.holdout.examples import DEFAULT, NO_DEV, evaluation, refusal, task, texts, tuning

TEN = "a b c d e f g h i j"  # six shingles


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


@pytest.mark.parametrize("level", LEVELS)
def test_a_proof_is_plain_data(level: Level) -> None:
    proof = prove(level, [tuning(texts("a"), dataset="yelp")], [evaluation("amazon")], [("yelp", "amazon")])
    assert json.loads(json.dumps(proof.as_dict())) == proof.as_dict()
    assert proof.as_dict()["allowed_related_pairs"] == [["yelp", "amazon"]]
    assert proof.as_dict()["statement"].startswith(STATEMENTS[level])


def test_the_generated_streams_are_apart() -> None:
    proof = prove("tasks", [named_stream("embedded-tuning").sealed()], [named_stream("embedded")])
    assert proof.near_duplicates == 0
    assert proof.tuning_examples > 3900
    assert proof.evaluation_examples > 4800


@pytest.mark.slow
def test_the_real_benchmark_split_is_apart(benchmark_folder: Path) -> None:
    ours = named_stream("benchmark-tuning", folder=benchmark_folder).sealed()
    proof = prove("tasks", [ours], [named_stream("benchmark-evaluation", folder=benchmark_folder)])
    assert (proof.tuning_examples, proof.evaluation_examples, proof.near_duplicates) == (18_997, 34_530, 0)


def test_a_real_text_on_two_sides_is_found(benchmark_folder: Path) -> None:
    """The one text that the tuning stream of the benchmark leaves out."""
    folder = str(benchmark_folder)
    ours, theirs = (FolderSource(folder=folder, tasks=(name,)).stream(name, Limits()) for name in ("yelp", "SST-2"))
    assert refusal("tasks", ours, theirs) == (
        "search: tuning stream 'yelp', task 'yelp', train row 114 and evaluation stream 'SST-2', task 'SST-2', "
        "train row 1655 hold the same text; holdout 'tasks' forbids it"
    )
