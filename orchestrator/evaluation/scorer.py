"""What a scorer is: it holds an answer against its target, and makes the score of a task from the results of many examples.

Shapes: N examples, D sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.measure import Direction, Measure
from streams import NORMAL_FORMS, SCORER_VERSIONS, Example

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
