"""Scorers: how an answer is held against its target, and how the results of many examples become the score of a task.

A task names its scorer (`Task.scorer`). A new scorer is a class here, an entry in SCORERS, and its name and version in
`streams.scorer_names`, from where they are part of the key under which a score is cached. Shapes: N examples, D sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.measure import Direction, Measure
from orchestrator.evaluation.sari import sari
from streams import NORMAL_FORMS, SCORER_VERSIONS, Example, Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExampleScore:
    """The result of one example: a number, whether the answer counts as right, and what the example adds to the sums from
    which `Scorer.combine` makes the score of a task.
    """

    score: float
    correct: bool
    addends: Array = field(compare=False, repr=False)


class Scorer:
    """Scores answers against targets. `better` says which direction of the combined score, in `unit`, is good; it is shown
    with so many `digits`.

    The score of a task is a function of sums over its examples. This one's is the mean of their numbers, in %. Scores go by
    their `series` in MLflow: `accuracy` where they count right answers.
    """

    name: ClassVar[str]
    series: ClassVar[str]
    reads_answers: ClassVar[bool] = True
    unit: ClassVar[str] = "%"
    better: ClassVar[Direction] = "higher"
    digits: ClassVar[int] = 1

    @property
    def version(self) -> int:
        """The number that goes up when the results change: scores of another version are not taken from the cache."""
        return SCORER_VERSIONS[self.name]

    @property
    def counts_right(self) -> bool:
        """Whether the number of an example says no more than whether its answer is right."""
        return self.series == "accuracy"

    def shown(self, number: float) -> str:
        """The number of one example in the unit of scores."""
        return f"{100 * number:.{self.digits}f}"

    @property
    def measure(self) -> Measure:
        """What its scores are."""
        return Measure(self.unit, self.better, self.digits)

    def of_labels(self, labels: Sequence[str]) -> Self:
        """The scorer for tasks of this label set. Most look at answers and targets alone."""
        return self

    def score_example(self, answer: str, example: Example) -> ExampleScore:
        """The result of one answer: right where it equals the target in the scorer's normal form."""
        number = self.number(answer, example)
        return ExampleScore(number, self.equals(answer, example.label), np.array([number, 1.0]))

    def number(self, answer: str, example: Example) -> float:
        """How good one answer is, from 0 to 1."""
        return float(self.equals(answer, example.label))

    def equals(self, answer: str, target: str) -> bool:
        """Whether an answer equals its target in the normal form that goes with the scorer's name."""
        normal_form = NORMAL_FORMS[self.name]
        return normal_form(answer) == normal_form(target)

    def combine(self, sums: Array) -> Array:
        """The scores [...] of tasks from the sums [..., D] of their examples' addends."""
        # multiplied first: a sum of ones is a whole number, so only the division rounds
        return np.asarray(100.0 * sums[..., 0] / sums[..., 1])

    def combined(self, results: Iterable[ExampleScore]) -> float:
        """The score of one task from the results of all its examples."""
        return float(self.combine(addends_of(results).sum(axis=0)))


def addends_of(results: Iterable[ExampleScore]) -> Array:
    """[N, D]: what each example adds to the sums."""
    return np.stack([result.addends for result in results])


class ExactMatch(Scorer):
    """The share of answers that equal their target without case and punctuation: the published evaluation."""

    name = "exact-match"
    series = "accuracy"


class Verbatim(Scorer):
    """The share of equal answers, with case and punctuation: for labels that differ in nothing else."""

    name = "verbatim"
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


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of one target: -log p of its tokens and end together, in nats; their number; the text's bytes."""

    loss: float
    num_tokens: int
    num_bytes: int


class LikelihoodScorer(Scorer):
    """Scores how likely a target is to a model, which answers nothing: no example is right or wrong."""

    better = "lower"
    reads_answers = False

    def shown(self, number: float) -> str:
        return f"{number:.{self.digits}f}"

    def score_likelihood(self, likelihood: Likelihood) -> ExampleScore:
        """The result of one example; its number is the score that it would have alone."""
        addends = self.addends(likelihood)
        return ExampleScore(float(self.combine(addends)), False, addends)

    def addends(self, likelihood: Likelihood) -> Array:
        """What one example adds to the sums."""
        raise NotImplementedError


class Perplexity(LikelihoodScorer):
    """exp(sum of -log p / number of tokens) of the targets' tokens, over all examples of a task together.

    The end of an answer is a token too, as in training. Another tokenizer has other tokens: numbers of two models compare
    only where these have one.
    """

    name = "perplexity"
    series = name
    unit = "perplexity"
    digits = 2

    def addends(self, likelihood: Likelihood) -> Array:
        return np.array([likelihood.loss, float(likelihood.num_tokens)])

    def combine(self, sums: Array) -> Array:
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))


class BitsPerByte(LikelihoodScorer):
    """Sum of -log2 p / bytes of the targets' texts (UTF-8), over all examples of a task together.

    The end of an answer costs bits and has no byte. Numbers of models with different tokenizers compare.
    """

    name = "bits-per-byte"
    series = name
    unit = "bits per byte"
    digits = 3

    def addends(self, likelihood: Likelihood) -> Array:
        return np.array([likelihood.loss / math.log(2), float(likelihood.num_bytes)])

    def combine(self, sums: Array) -> Array:
        # an empty target has bits and no byte
        return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


_ALL: tuple[Scorer, ...] = (
    ExactMatch(),
    Verbatim(),
    Accuracy(),
    MacroF1(),
    RougeL(),
    Sari(),
    EditSimilarity(),
    Numeric(),
    Perplexity(),
    BitsPerByte(),
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
