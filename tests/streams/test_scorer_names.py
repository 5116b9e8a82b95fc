"""The names of scorers, and the labels that they can tell apart."""

from __future__ import annotations

import dataclasses

import pytest

from streams import DEFAULT_SCORER, NORMAL_FORMS, SCORER_VERSIONS, check_labels, check_scorer
from streams.scorer_names import LIBRARIES
from tests.streams.examples import task


def test_known_scorers_pass_and_others_are_refused_with_the_nearest() -> None:
    assert DEFAULT_SCORER in SCORER_VERSIONS
    assert SCORER_VERSIONS.keys() == NORMAL_FORMS.keys()
    for name in SCORER_VERSIONS:
        check_scorer(name)
    with pytest.raises(ValueError, match=r"unknown scorer 'exact'\. Did you mean 'exact-match'"):
        check_scorer("exact")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (("A", "C", "C++", "C#"), "the labels 'C' and 'C++' are equal"),
        (("+", "-"), "the label '+' is empty"),
        (("1.5", "15"), "the labels '1.5' and '15' are equal"),
        (("Yes", "no", "yes"), "the labels 'Yes' and 'yes' are equal"),
        (("-1", "0", "1"), "the labels '-1' and '1' are equal"),
        (("very  good", "very good"), "the labels 'very  good' and 'very good' are equal"),
    ],
)
def test_labels_that_the_scorer_cannot_tell_apart_are_refused(labels: tuple[str, ...], problem: str) -> None:
    t = task(labels=labels)
    with pytest.raises(ValueError) as caught:
        check_labels(t)
    assert str(caught.value).startswith(f"task 't': {problem} to the scorer 'exact-match', ")
    verbatim = dataclasses.replace(t, scorer="verbatim")
    if "very good" in labels:
        # blanks are no difference to any scorer
        with pytest.raises(ValueError, match="equal to the scorer 'verbatim'"):
            check_labels(verbatim)
    else:
        check_labels(verbatim)


def test_labels_that_differ_in_letters_pass() -> None:
    labels = ("Society & Culture", "Science & Mathematics", "A", "B")
    check_labels(task(labels=labels))
    normal = {NORMAL_FORMS["exact-match"](label) for label in labels}
    assert len(normal) == 4 and all(normal), "they stay apart, and something is left of each"
    check_labels(task(labels=()))


@pytest.mark.parametrize("scorer", ["accuracy", "macro-f1"])
def test_a_scorer_of_labels_is_refused_where_answers_are_open(scorer: str) -> None:
    open_task = dataclasses.replace(task(labels=()), scorer=scorer)
    with pytest.raises(
        ValueError, match=f"task 't' has no label set, which the scorer '{scorer}' needs; allowed .*rouge"
    ):
        check_labels(open_task)
    check_labels(dataclasses.replace(task(labels=("yes", "no")), scorer=scorer))


def test_labels_without_a_number_of_their_own_are_refused_by_the_scorer_of_numbers() -> None:
    for labels, problem in ((("1", "none"), "the label 'none' is empty"), (("1", "1.0"), "'1' and '1.0' are equal")):
        with pytest.raises(ValueError, match=problem + ".*which compares the last numbers"):
            check_labels(dataclasses.replace(task(labels=labels), scorer="numeric"))
    check_labels(dataclasses.replace(task(labels=("-1", "1")), scorer="numeric"))


def test_labels_with_one_first_word_are_refused_by_the_scorer_of_choices() -> None:
    with pytest.raises(ValueError, match=r"'very good' and 'very bad' are equal.*compares the first words"):
        check_labels(dataclasses.replace(task(labels=("very good", "very bad")), scorer="choice"))


def test_a_scorer_without_its_library_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARIES, "rouge-l", ("no_such_module", "rouge-score"))
    with pytest.raises(
        ValueError, match=r"'rouge-l' needs the package rouge-score, .*continual-orchestrator\[scorers\]"
    ):
        check_scorer("rouge-l")
    check_scorer("edit-similarity")


def test_an_unknown_scorer_of_a_sources_own_task_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^task 't': unknown scorer 'rogue-l'\. Did you mean 'rouge-l'\?"):
        check_labels(dataclasses.replace(task(), scorer="rogue-l"))
