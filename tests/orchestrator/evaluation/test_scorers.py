"""How answers are held against their targets."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.evaluation.scorers import (
    SCORERS,
    ExactMatch,
    common_measure,
    measure_of,
    scorer_of,
    tasks_by_scorer,
)
from streams import SCORER_VERSIONS, Example
from tests.streams.examples import task


def combined(name: str, pairs: list[tuple[str, str]], labels: tuple[str, ...] = ()) -> float:
    """The score of a task from (answer, target) pairs."""
    scorer = SCORERS[name].of_labels(labels)
    return scorer.combined([scorer.score_example(answer, Example("", target)) for answer, target in pairs])


@pytest.mark.parametrize(
    ("answer", "target", "correct"),
    [
        (" Very negative.", "very negative", True),
        ("very  NEGATIVE!", "Very negative", True),
        ("very negative good", "very negative", False),
        ("", "very negative", False),
    ],
)
def test_exact_match_compares_after_the_published_normalisation(answer: str, target: str, correct: bool) -> None:
    result = ExactMatch().score_example(answer, Example("", target))
    assert result.correct is correct
    assert result.score == (1.0 if correct else 0.0)


def test_exact_match_of_a_task_is_the_share_in_percent() -> None:
    assert combined("exact-match", [("a", "a"), ("b", "a"), ("c", "a")]) == 100.0 * 1 / 3
    assert combined("exact-match", [("a", "a"), ("b", "b")]) == 100.0
    assert (ExactMatch().unit, ExactMatch().better) == ("%", "higher")


def test_every_scorer_is_found_by_its_name_and_has_a_version() -> None:
    assert {scorer.name: scorer.version for scorer in SCORERS.values()} == SCORER_VERSIONS


def test_verbatim_keeps_case_and_punctuation() -> None:
    scorer = SCORERS["verbatim"]
    assert scorer.score_example(" C  sharp\n", Example("", "C sharp")).correct
    for answer in ("c sharp", "C sharp.", "Csharp", ""):
        assert scorer.score_example(answer, Example("", "C sharp")).score == 0.0
    assert combined("verbatim", [("a", "a"), ("b", "a")]) == 50.0


def test_accuracy_of_a_chosen_label_is_exact_match() -> None:
    pairs = [("Good.", "good"), ("bad", "good"), ("goodbye", "good"), ("", "bad"), ("BAD", "bad")]
    assert combined("accuracy", pairs, ("good", "bad")) == combined("exact-match", pairs) == 40.0


def test_macro_f1_by_hand() -> None:
    """Three labels: a asked 3 times and b 2 times; c is answered once and never asked; `x` is no label."""
    pairs = [("a", "a"), ("A.", "a"), ("b", "a"), ("c", "b"), ("x", "b")]
    f1_a = 2 * 2 / (2 + 3)
    f1_b = 2 * 0 / (1 + 2)
    f1_c = 2 * 0 / (1 + 0)
    assert combined("macro-f1", pairs, ("a", "b", "c")) == pytest.approx(100 * (f1_a + f1_b + f1_c) / 3)
    # a label that is neither asked nor answered is left out
    assert combined("macro-f1", pairs, ("a", "b", "c", "d")) == pytest.approx(100 * f1_a / 3)
    assert combined("macro-f1", [("a", "a"), ("b", "b")], ("a", "b", "c")) == 100.0
    # precision 1/2 and recall 1 of a; precision 1 and recall 1/2 of b: an unequal share of the two must not cancel
    unequal = [("a", "a"), ("a", "b"), ("b", "b")]
    assert combined("macro-f1", unequal, ("a", "b")) == pytest.approx(100 * 2 / 3)


def test_a_task_gives_its_label_set_to_its_scorer() -> None:
    t = task(labels=("yes", "no"))
    object.__setattr__(t, "scorer", "macro-f1")
    scorer = scorer_of(t)
    results = [scorer.score_example(answer, Example("", target)) for answer, target in (("no", "no"), ("no", "yes"))]
    assert scorer.combined(results) == pytest.approx(100 * (2 / 3) / 2)


def test_rouge_l_is_f1_of_the_longest_common_subsequence() -> None:
    # `the cat sat` in order: 3 of the answer's 4 words, 3 of the target's 6
    answer, target = "The cat, sat quietly", "the big cat sat there today"
    precision, recall = 3 / 4, 3 / 6
    first = 2 * precision * recall / (precision + recall)
    assert SCORERS["rouge-l"].score_example(answer, Example("", target)).score == pytest.approx(first)
    # no stemmer: `cats` is not `cat`
    assert SCORERS["rouge-l"].score_example("cats", Example("", "cat")).score == 0.0
    assert combined("rouge-l", [(answer, target), ("x", "y"), ("z", "z")]) == pytest.approx(100 * (first + 0 + 1) / 3)


def test_sari_takes_the_example_for_source_and_reference() -> None:
    result = SCORERS["sari"].score_example("a c", Example("a b", "a c"))
    assert (result.score, result.correct) == (pytest.approx(5 / 12), True)
    assert SCORERS["sari"].combined([result, result]) == pytest.approx(100 * 5 / 12)


def test_edit_similarity_by_hand() -> None:
    # `abxd` and `abcde`: a, b and d in order, so 2 x 3 of 4 + 5 letters
    assert combined("edit-similarity", [("abxd", "abcde")]) == pytest.approx(100 * 6 / 9)
    assert combined("edit-similarity", [("abxd", "abcde"), ("x = 1", "x = 1")]) == pytest.approx(
        (100 * 6 / 9 + 100) / 2
    )


@pytest.mark.parametrize(
    ("answer", "target", "correct"),
    [
        ("He has 3 + 4 = 7 apples.", "#### 7", True),
        ("1,200.50 dollars", "1200.5", True),
        ("it is -5", "-5", True),
        ("10-5", "5", True),
        ("5", "-5", False),
        ("7 of 8", "7", False),
        ("0.10", ".1", True),
        ("12345678901234567891", "12345678901234567892", False),
        ("-0", "0", True),
        ("none", "7", False),
        ("none", "nothing", False),
    ],
)
def test_numeric_compares_the_last_numbers(answer: str, target: str, correct: bool) -> None:
    result = SCORERS["numeric"].score_example(answer, Example("", target))
    assert (result.correct, result.score) == (correct, float(correct))


@pytest.mark.parametrize(
    ("answer", "target", "correct"),
    [
        ("Answer: B\nBecause it floats", "Answer: B\nBecause wood is light", True),
        ("Answer: A\nBecause it floats", "Answer: B\nBecause wood is light", False),
        ("I say: no. Answer: B", "B, as wood is light", True),
        ("(B) because", "B", True),
        ("Answer: A\nBecause B is wrong", "B\nBecause", False),
        ("Boats", "B", False),
        ("b", "B", False),
        ("", "B", False),
        ("?!", "B", False),
    ],
)
def test_a_choice_is_the_first_word_whatever_the_reasons(answer: str, target: str, correct: bool) -> None:
    assert SCORERS["choice"].score_example(answer, Example("", target)).correct is correct


def test_scores_of_one_measure_have_a_mean_and_others_none() -> None:
    assert measure_of(["exact-match", "rouge-l", "sari"]) == ExactMatch().measure
    assert measure_of(["perplexity"]) == SCORERS["perplexity"].measure
    assert measure_of(["exact-match", "perplexity"]) is None
    assert measure_of(["bits-per-byte", "perplexity"]) is None
    assert tasks_by_scorer(["sari", "numeric", "sari"]) == {"sari": [0, 2], "numeric": [1]}
    likely = dataclasses.replace(task(name="likely"), scorer="perplexity")
    assert common_measure([likely, likely]).better == "lower"
    with pytest.raises(ValueError, match="units: task 't' by exact-match in %, 'likely' by perplexity in perplexity"):
        common_measure([task(), likely, task()])
