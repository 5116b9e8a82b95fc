"""The scorers by their names, and those that hold an answer against its target.

A task names its scorer (`Task.scorer`). A new scorer is a class, an entry in SCORERS, and its name and version in
`streams.scorer_names`, from where they are part of the key under which a score is cached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Self

import numpy as np

from orchestrator.evaluation.code.pass_at_1 import PassAt1
from orchestrator.evaluation.likelihoods import BitsPerByte, Perplexity
from orchestrator.evaluation.measure import Measure
from orchestrator.evaluation.sari import sari
from orchestrator.evaluation.scorer import Array, ExampleScore, Scorer
from streams import NORMAL_FORMS, Example, Task


class ExactMatch(Scorer):
    """The share of answers that equal their target without case and punctuation: the published evaluation."""

    name = "exact-match"
    series = "accuracy"


class Verbatim(Scorer):
    """The share of equal answers, with case and punctuation: for labels that differ in nothing else."""

    name = "verbatim"
    series = "accuracy"


class Choice(Scorer):
    """The share of answers that choose the right option, whatever reasons they give: the accuracy of ScienceQA in TRACE
    (arXiv 2310.06762), which reads one letter of an answer; the whole first word is compared here.
    """

    name = "choice"
    series = "accuracy"


class Accuracy(Scorer):
    """The share of answers that choose the right label of the task's label set; refused where there is none.

    The same number as `exact-match` gives: that one refuses label sets in which two labels are equal to it, so that an
    answer that equals the target's normal form is that label and no other.
    """

    name = "accuracy"
    series = "accuracy"


class Numeric(Scorer):
    """The share of answers whose last number equals the last number of the target, as GSM8K and NumGLUE are scored."""

    name = "numeric"
    series = "accuracy"

    def equals(self, answer: str, target: str) -> bool:
        # an answer without a number is wrong, whatever a target that has none asks for
        return bool(NORMAL_FORMS[self.name](answer)) and super().equals(answer, target)


class MacroF1(Scorer):
    """The mean over labels of F1 = 2 right / (answered + asked for), in the normal form of `exact-match`.

    An answer that is no label is a miss of its target's label, and a false alarm of none. A label of the set that is
    neither asked for nor answered has no F1 (0/0) and is left out of the mean, as in scikit-learn.
    """

    name = "macro-f1"
    series = name

    def __init__(self, labels: Sequence[str] = ()) -> None:
        normal_form = NORMAL_FORMS[self.name]
        self.index: dict[str, int] = {}
        for label in labels:
            self.index.setdefault(normal_form(label), len(self.index))

    def of_labels(self, labels: Sequence[str]) -> Self:
        return type(self)(labels)

    def score_example(self, answer: str, example: Example) -> ExampleScore:
        normal_form = NORMAL_FORMS[self.name]
        correct = self.equals(answer, example.label)
        addends = np.zeros((3, len(self.index)))
        target = self.index[normal_form(example.label)]
        answered = self.index.get(normal_form(answer))
        addends[2, target] = 1
        if answered is not None:
            addends[1, answered] = 1
        if correct:
            addends[0, target] = 1
        return ExampleScore(float(correct), correct, addends.ravel())

    def combine(self, sums: Array) -> Array:
        right, answered, asked = np.split(sums, 3, axis=-1)
        seen = answered + asked
        f1 = 2 * right / np.maximum(seen, 1)
        return np.asarray(100.0 * f1.sum(axis=-1) / (seen > 0).sum(axis=-1))


class RougeL(Scorer):
    """ROUGE-L: F1 of the longest common subsequence of words (the library rouge-score, without its stemmer), as a mean.

    The library reads a to z and 0 to 9 in lower case and takes all else for blanks: text in another script scores 0.
    """

    name = "rouge-l"
    series = name

    def number(self, answer: str, example: Example) -> float:
        return float(_rouge_scorer().score(example.label, answer)["rougeL"].fmeasure)


@cache
def _rouge_scorer() -> Any:
    # imported where it is asked for: an extra, which brings all of nltk
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


class Sari(Scorer):
    """SARI of a simplification: the mean over examples, each with its text as the source and its target as the reference."""

    name = "sari"
    series = name

    def number(self, answer: str, example: Example) -> float:
        return sari(example.text, answer, [example.label])


class EditSimilarity(Scorer):
    """The mean of 2 x (longest common subsequence of letters) / (letters of answer and target): `fuzz.ratio` of rapidfuzz.

    TRACE (arXiv 2310.06762) scores code so. Not rounded to whole percent, as older libraries of the name do.
    """

    name = "edit-similarity"
    series = name

    def number(self, answer: str, example: Example) -> float:
        from rapidfuzz import fuzz

        return float(fuzz.ratio(answer, example.label)) / 100


_ALL: tuple[Scorer, ...] = (
    ExactMatch(),
    Verbatim(),
    Accuracy(),
    MacroF1(),
    RougeL(),
    Sari(),
    EditSimilarity(),
    Numeric(),
    Choice(),
    Perplexity(),
    BitsPerByte(),
    PassAt1(),
)
SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in _ALL}


def scorer_of(task: Task) -> Scorer:
    """The scorer that a task names."""
    return SCORERS[task.scorer].of_labels(task.labels)


def measure_of(scorers: Iterable[str]) -> Measure | None:
    """The measure of all the scorers of these names; None where they have more than one, of which no mean can be taken."""
    measures = {SCORERS[name].measure for name in scorers}
    if len(measures) == 1:
        return measures.pop()
    return None


def common_measure(tasks: Iterable[Task]) -> Measure:
    """The measure of the scores of all tasks. Raises ValueError where they have several."""
    units: dict[str, str] = {}
    for task in tasks:
        units.setdefault(task.scorer, f"{task.name!r} by {task.scorer} in {SCORERS[task.scorer].unit}")
    measure = measure_of(units)
    if measure is None:
        raise ValueError(f"scores are in different units: task {', '.join(units.values())}")
    return measure


def tasks_by_scorer(scorers: Sequence[str]) -> dict[str, list[int]]:
    """The tasks of each scorer, from the scorer of each task."""
    tasks: dict[str, list[int]] = {}
    for task_id, name in enumerate(scorers):
        tasks.setdefault(name, []).append(task_id)
    return tasks
