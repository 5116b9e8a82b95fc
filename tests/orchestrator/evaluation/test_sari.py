"""SARI against numbers worked out by hand, and against those that its authors print."""

from __future__ import annotations

import pytest

from orchestrator.evaluation.sari import sari

SOURCE = "About 95 species are currently accepted ."
REFERENCES = (
    "About 95 species are currently known .",
    "About 95 species are now accepted .",
    "95 species are now accepted .",
)


def test_two_words_of_which_one_is_replaced() -> None:
    # of one word: a kept (F1 1), b deleted (1), c added (1); of two: `a b` deleted (1), `a c` added (1), nothing kept (0)
    assert sari("a b", "a c", ["a c"]) == pytest.approx((1 + 1 + 1 + 0 + 1 + 1) / 12)
    # case does not count
    assert sari("A b", "a C", ["a c"]) == pytest.approx(5 / 12)


def test_repeated_words_and_two_references() -> None:
    """Counts times two references: the source a 4, b 2; the answer a 2, b 4; the references a 2, b 1, c 1."""
    # of one word: kept a 2, b 2; to keep a 2, b 1. Precision (2/2 + 1/2) / 2, recall (2/2 + 1/1) / 2
    kept = 2 * (3 / 4) * 1 / (3 / 4 + 1)
    # of the two a's that are deleted, the references have both: 0. No new word: 0
    one = kept + 0 + 0
    # `a b` kept twice, to keep once: precision 1/2, recall 1. `a a` deleted rightly: 1. `b b` added, `a c` to add: 0
    two = 2 * (1 / 2) * 1 / (1 / 2 + 1) + 1 + 0
    # `a a b` deleted rightly; nothing to keep or add
    three = 0 + 1 + 0
    assert sari("a a b", "a b b", ["a b", "a c"]) == pytest.approx((one + two + three) / 12)


@pytest.mark.parametrize(
    ("answer", "published"),
    [
        ("About 95 you now get in .", 0.2682782411698074),
        ("About 95 species are now agreed .", 0.5889995423074248),
        ("About 95 species are currently agreed .", 0.5071608864657479),
    ],
)
def test_the_examples_of_its_authors(answer: str, published: float) -> None:
    assert sari(SOURCE, answer, REFERENCES) == pytest.approx(published, abs=1e-15)


def test_an_empty_answer_is_judged_by_its_deletions_alone() -> None:
    # of one word, of three: b alone is in no reference
    assert sari("a b c", "", ["a c"]) == pytest.approx((1 / 3 + 1 + 1) / 12)
    assert sari("", "", [""]) == 0.0
