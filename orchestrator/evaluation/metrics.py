"""Continual-learning metrics: the one registry of their names, units and directions, over the formulas of `formulas`.

The scores of a stream are in one measure (unit and direction), or in several, and then no mean over all of them says
anything: see `summary`. Where a lower score is better, as with perplexity, the formulas are taken of the scores with their
signs changed: forgetting is the rise, and a backward transfer above 0 still means that a task has got better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from methods.reference_runs import SEQUENTIAL, RunKind
from orchestrator.evaluation.formulas import (
    NAN,
    Matrix,
    Tasks,
    as_matrix,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    learning_accuracy,
    micro_average_accuracy,
)
from orchestrator.evaluation.measure import PERCENT, Direction, Measure

# The formulas are this module's too for whoever asks for metrics
__all__ = [
    "METRICS",
    "Matrix",
    "MatrixScores",
    "Metric",
    "as_matrix",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "intransigence",
    "learning_accuracy",
    "micro_average_accuracy",
    "summary",
]


@dataclass(frozen=True)
class MatrixScores:
    """What metrics are computed from.

    `accuracy_matrix` and `options_matrix` (scores when only a task's own options compete; NaN where there are none) have
    shape (T+1) x T, `test_sizes` counts the examples of each task. `reference_T` has a reference run's score on each task,
    NaN where there is no such run. Of all scores a higher one is better. The means are over `tasks` (None: all).
    """

    accuracy_matrix: Matrix
    options_matrix: Matrix
    test_sizes: Sequence[int]
    reference_T: Matrix
    tasks: Tasks = None

    @property
    def acc_TT(self) -> Matrix:
        """The accuracy matrix without the scores of the initial model."""
        return self.accuracy_matrix[1:]


@dataclass(frozen=True)
class Metric:
    """A metric: `name` in JSON, CSV files, MLflow and a search's `metric`, and `title` and `meaning` on the screen,
    `long_title` where there is room.

    Most are means of scores, in their unit and good in their direction; `change` says of one that is a mean of changes of
    scores in which direction it is good. A metric that `needs_a_sequence` of states means nothing for a reference run.
    """

    name: str
    title: str
    long_title: str
    meaning: str
    formula: Callable[[MatrixScores], float]
    change: Direction | None = None
    needs_a_sequence: bool = True
    in_table: bool = True
    # shown only where it has a value: not every model or experiment has it
    is_optional: bool = False
    # the forgetting in the scores that this one is a mean of, by name; for what a search may maximise
    forgetting: str = ""

    def unit(self, measure: Measure = PERCENT) -> str:
        """The metric's unit where scores are in this measure."""
        return measure.unit_of_changes if self.change else measure.unit

    def better(self, measure: Measure = PERCENT) -> Direction:
        """The direction that is good where scores are in this measure."""
        return self.change or measure.better

    def arrow(self, measure: Measure = PERCENT) -> str:
        """An arrow towards better values."""
        return {"higher": "↑", "lower": "↓"}[self.better(measure)]

    def heading(self, measure: Measure = PERCENT) -> str:
        """The title with an arrow towards better values."""
        return f"{self.title} {self.arrow(measure)}"

    def applies_to(self, kind: RunKind) -> bool:
        """Whether the metric means something for a kind of run."""
        return kind.learns_a_sequence or not self.needs_a_sequence


# In the order of the table's and the CSV file's columns
_ALL = (
    Metric(
        name="aa",
        title="AA",
        long_title="average accuracy",
        meaning="mean score over tasks after the last one",
        formula=lambda scores: average_accuracy(scores.acc_TT, scores.tasks),
        needs_a_sequence=False,
        forgetting="forgetting",
    ),
    Metric(
        name="aa_options",
        title="AA opt.",
        long_title="average accuracy among options",
        meaning="AA when only the task's own options compete",
        formula=lambda scores: average_accuracy(scores.options_matrix[1:], scores.tasks),
        needs_a_sequence=False,
        is_optional=True,
        forgetting="forgetting_options",
    ),
    Metric(
        name="micro_aa",
        title="micro AA",
        long_title="micro average accuracy",
        meaning="mean score over test examples after the last task",
        formula=lambda scores: micro_average_accuracy(scores.acc_TT, scores.test_sizes, scores.tasks),
        needs_a_sequence=False,
        in_table=False,
    ),
    Metric(
        name="bwt",
        title="BWT",
        long_title="backward transfer",
        meaning="mean change of a task's score since it was learnt",
        formula=lambda scores: backward_transfer(scores.acc_TT, scores.tasks),
        change="higher",
    ),
    Metric(
        name="forgetting",
        title="forget.",
        long_title="forgetting",
        meaning="mean worsening from a task's best score",
        formula=lambda scores: forgetting(scores.acc_TT, scores.tasks),
        change="lower",
    ),
    Metric(
        name="forgetting_options",
        title="forget. opt.",
        long_title="forgetting among options",
        meaning="forgetting when only the task's own options compete",
        formula=lambda scores: forgetting(scores.options_matrix[1:], scores.tasks),
        change="lower",
        in_table=False,
        is_optional=True,
    ),
    Metric(
        name="fwt",
        title="FWT",
        long_title="forward transfer",
        meaning="mean change of a task's score before its turn, from the initial model",
        formula=lambda scores: forward_transfer(scores.accuracy_matrix, scores.tasks),
        change="higher",
        in_table=False,
    ),
    Metric(
        name="average_incremental_accuracy",
        title="AIA",
        long_title="average incremental accuracy",
        meaning="mean over time of the mean score over the tasks seen",
        formula=lambda scores: average_incremental_accuracy(scores.acc_TT, scores.tasks),
        in_table=False,
    ),
    Metric(
        name="learning_accuracy",
        title="learned",
        long_title="learning accuracy",
        meaning="mean score of a task right after it was trained",
        formula=lambda scores: learning_accuracy(scores.acc_TT, scores.tasks),
    ),
    Metric(
        name="intransigence",
        title="intrans.",
        long_title="intransigence",
        meaning="mean of what a task, right after it was learnt, lacks to the reference run",
        formula=lambda scores: intransigence(scores.acc_TT, scores.reference_T, scores.tasks),
        change="lower",
        is_optional=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def summary(
    accuracy_matrix: Matrix,
    test_sizes: Sequence[int],
    options_matrix: Matrix | None = None,
    num_tasks: int | None = None,
    kind: RunKind = SEQUENTIAL,
    reference_T: Matrix | None = None,
    measure: Measure | None = PERCENT,
    tasks: Tasks = None,
) -> dict[str, float]:
    """The metrics that apply to a kind of run, by name, after `num_tasks` tasks and over these (default: all).

    The matrices have shape (T+1) x T, `reference_T` has a score for each task. A value is NaN where a score that it needs
    is, or is not given; and all are where the scores have no common `measure` (None). `tasks`: means over these alone, such
    as those of one scorer.
    """
    if num_tasks is None:
        num_tasks = accuracy_matrix.shape[1]
    if options_matrix is None:
        options_matrix = np.full_like(accuracy_matrix, NAN)
    if reference_T is None:
        reference_T = np.full(accuracy_matrix.shape[1], NAN)
    sign = measure.sign if measure else NAN
    seen = MatrixScores(
        sign * accuracy_matrix[: num_tasks + 1, :num_tasks],
        sign * options_matrix[: num_tasks + 1, :num_tasks],
        test_sizes[:num_tasks],
        sign * reference_T[:num_tasks],
        tasks,
    )
    # a metric that does not apply is left out; one that cannot be known yet is NaN
    values = {}
    for metric in METRICS.values():
        if metric.applies_to(kind):
            value = metric.formula(seen)
            # a mean of scores is a score again; of a change the sign says whether it is for the better
            values[metric.name] = value if metric.change else sign * value
    return values
