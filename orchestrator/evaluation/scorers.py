"""Scorers: how an answer is held against its target, and how the results of many examples become the score of a task.

A task names its scorer (`Task.scorer`). A new scorer is a class here, an entry in SCORERS, and its name and version in
`streams.scorer_names`, from where they are part of the key under which a score is cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from streams import NORMAL_FORMS, SCORER_VERSIONS, Task

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class ExampleScore:
    """The result of one example: a number, and whether the answer counts as right."""

    score: float
    correct: bool


class Scorer:
    """Scores answers against targets. `better` says which direction of the combined score, in `unit`, is good."""

    name: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Direction]

    @property
    def version(self) -> int:
        """The number that goes up when the results change: scores of another version are not taken from the cache."""
        return SCORER_VERSIONS[self.name]

    def score_example(self, answer: str, target: str) -> ExampleScore:
        """The result of one answer."""
        raise NotImplementedError

    def combine(self, scores: Sequence[float]) -> float:
        """The score of a task from the numbers of all its examples."""
        raise NotImplementedError


class Equality(Scorer):
    """The share of answers (in %) that equal their target, in the normal form that goes with the scorer's name."""

    unit = "%"
    better = "higher"

    def score_example(self, answer: str, target: str) -> ExampleScore:
        normal_form = NORMAL_FORMS[self.name]
        equal = normal_form(answer) == normal_form(target)
        return ExampleScore(float(equal), equal)

    def combine(self, scores: Sequence[float]) -> float:
        # multiplied first: the sum is a whole number, so only the division rounds
        return 100.0 * sum(scores) / len(scores)


class ExactMatch(Equality):
    """Without case and punctuation: the published evaluation."""

    name = "exact-match"


class Verbatim(Equality):
    """With case and punctuation: for labels that differ in nothing else."""

    name = "verbatim"


SCORERS: dict[str, Scorer] = {ExactMatch.name: ExactMatch(), Verbatim.name: Verbatim()}


def scorer_of(task: Task) -> Scorer:
    """The scorer that a task names."""
    return SCORERS[task.scorer]
