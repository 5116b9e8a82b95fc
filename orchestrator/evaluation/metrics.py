"""Continual-learning metrics: formulas over an accuracy matrix, and the one registry of their names, units and directions.

`accuracy_matrix` has shape (T+1) x T: the score (in %) on each task of the state after `tasks_seen` tasks, of which the
first is the initial model (`tasks_seen` 0); NaN where nothing was measured. Only forward transfer needs scores on tasks
before their turn. `acc_TT` is its part after training: the t-th is the score on every task after t = 1..T tasks. All
results are in % or percentage points.
Formulas: average accuracy, backward transfer (arXiv 1706.08840), forgetting and intransigence (arXiv 1801.10112).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.reference_runs import SEQUENTIAL, RunKind
from orchestrator.evaluation.scorers import Direction

Matrix = NDArray[np.float64]

NAN = float("nan")


def as_matrix(scores: Sequence[Sequence[float | None]]) -> Matrix:
    """A float array from nested lists in which None means not measured."""
    # numpy makes NaN of None where it is told the type
    return np.array(scores, dtype=np.float64)


def average_accuracy(acc_TT: Matrix) -> float:
    """AA (macro): mean_j a[T, j], the mean score over tasks after the last one. Higher is better."""
    return float(np.mean(acc_TT[-1]))


def micro_average_accuracy(acc_TT: Matrix, test_sizes: Sequence[int]) -> float:
    """Micro AA: the mean score over test examples instead of tasks, after the last task. Higher is better."""
    return float(np.average(acc_TT[-1], weights=np.asarray(test_sizes, dtype=np.float64)))


def backward_transfer(acc_TT: Matrix) -> float:
    """BWT: mean_{j<T} (a[T, j] - a[j, j]), signed; NaN for one task. Higher is better."""
    if len(acc_TT) < 2:
        return NAN
    right_after_training = np.diagonal(acc_TT)
    return float(np.mean(acc_TT[-1, :-1] - right_after_training[:-1]))


def forgetting(acc_TT: Matrix) -> float:
    """Forgetting: mean_{j<T} (max_{1<=s<T} a[s, j] - a[T, j]); NaN for one task. Lower is better.

    Scores that are NaN are left out of the maximum: where states are scored on the tasks that they have seen alone, it is
    over j <= s < T.
    """
    if len(acc_TT) < 2:
        return NAN
    # not among them the initial model: a task that was best before training was never learnt
    # (fmax leaves out NaN as nanmax does, and does not warn where a column has nothing else)
    best_before = np.fmax.reduce(acc_TT[:-1, :-1], axis=0)
    # the last task has had no time to be forgotten
    return float(np.mean(best_before - acc_TT[-1, :-1]))


def learning_accuracy(acc_TT: Matrix) -> float:
    """Learning accuracy: mean_j a[j, j], the mean score of a task right after it was trained. Higher is better."""
    return float(np.mean(np.diagonal(acc_TT)))


def average_incremental_accuracy(acc_TT: Matrix) -> float:
    """Average incremental accuracy: mean_t mean_{j<=t} a[t, j], over the tasks seen by then. Higher is better."""
    means = []
    for task_id, scores in enumerate(acc_TT):
        means.append(np.mean(scores[: task_id + 1]))
    return float(np.mean(means))


def forward_transfer(accuracy_matrix: Matrix) -> float:
    """FWT: mean_{j>1} (a[j-1, j] - a[0, j]), from the (T+1) x T matrix; NaN for one task. Higher is better."""
    num_tasks = accuracy_matrix.shape[1]
    if num_tasks < 2:
        return NAN
    gains = []
    for task_id in range(1, num_tasks):
        # `task_id` tasks were seen right before the turn of task `task_id`
        gains.append(accuracy_matrix[task_id, task_id] - accuracy_matrix[0, task_id])
    return float(np.mean(gains))


def intransigence(acc_TT: Matrix, reference_T: Matrix) -> float:
    """Intransigence: mean_j (a*_j - a[j, j]), a*_j being a reference run's score on task j. Lower is better.

    In the paper a* is that of a model trained on tasks 1 to j together. A reference run here is trained on all T tasks
    at once (joint) or on task j alone (expert), so for j < T our a* is another upper bound than the paper's.
    """
    return float(np.mean(reference_T - np.diagonal(acc_TT)))


@dataclass(frozen=True)
class MatrixScores:
    """What metrics are computed from.

    `accuracy_matrix` and `options_matrix` (scores when only a task's own options compete; NaN where there are none) have
    shape (T+1) x T, `test_sizes` counts the examples of each task. `reference_T` has a reference run's score on each task,
    NaN where there is no such run.
    """

    accuracy_matrix: Matrix
    options_matrix: Matrix
    test_sizes: Sequence[int]
    reference_T: Matrix

    @property
    def acc_TT(self) -> Matrix:
        """The accuracy matrix without the scores of the initial model."""
        return self.accuracy_matrix[1:]


@dataclass(frozen=True)
class Metric:
    """A metric: `name` in JSON, CSV files, MLflow and a search's `metric`, and `title` and `meaning` on the screen,
    `long_title` where there is room.

    `better` is the direction that is good. A metric that `needs_a_sequence` of states means nothing for a
    reference run.
    """

    name: str
    title: str
    long_title: str
    unit: str
    better: Direction
    meaning: str
    formula: Callable[[MatrixScores], float]
    needs_a_sequence: bool = True
    in_table: bool = True
    # shown only where it has a value: not every model or experiment has it
    is_optional: bool = False
    # the forgetting in the scores that this one is a mean of, by name; for what a search may maximise
    forgetting: str = ""

    @property
    def arrow(self) -> str:
        """An arrow towards better values."""
        return {"higher": "↑", "lower": "↓"}[self.better]

    @property
    def heading(self) -> str:
        """The title with an arrow towards better values."""
        return f"{self.title} {self.arrow}"

    def applies_to(self, kind: RunKind) -> bool:
        """Whether the metric means something for a kind of run."""
        return kind.learns_a_sequence or not self.needs_a_sequence


# In the order of the table's and the CSV file's columns
_ALL = (
    Metric(
        name="aa",
        title="AA",
        long_title="average accuracy",
        unit="%",
        better="higher",
        meaning="mean score over tasks after the last one",
        formula=lambda scores: average_accuracy(scores.acc_TT),
        needs_a_sequence=False,
        forgetting="forgetting",
    ),
    Metric(
        name="aa_options",
        title="AA opt.",
        long_title="average accuracy among options",
        unit="%",
        better="higher",
        meaning="AA when only the task's own options compete",
        formula=lambda scores: average_accuracy(scores.options_matrix[1:]),
        needs_a_sequence=False,
        is_optional=True,
        forgetting="forgetting_options",
    ),
    Metric(
        name="micro_aa",
        title="micro AA",
        long_title="micro average accuracy",
        unit="%",
        better="higher",
        meaning="mean score over test examples after the last task",
        formula=lambda scores: micro_average_accuracy(scores.acc_TT, scores.test_sizes),
        needs_a_sequence=False,
        in_table=False,
    ),
    Metric(
        name="bwt",
        title="BWT",
        long_title="backward transfer",
        unit="points",
        better="higher",
        meaning="mean change of a task's score since it was learnt",
        formula=lambda scores: backward_transfer(scores.acc_TT),
    ),
    Metric(
        name="forgetting",
        title="forget.",
        long_title="forgetting",
        unit="points",
        better="lower",
        meaning="mean drop from a task's best score",
        formula=lambda scores: forgetting(scores.acc_TT),
    ),
    Metric(
        name="forgetting_options",
        title="forget. opt.",
        long_title="forgetting among options",
        unit="points",
        better="lower",
        meaning="forgetting when only the task's own options compete",
        formula=lambda scores: forgetting(scores.options_matrix[1:]),
        in_table=False,
        is_optional=True,
    ),
    Metric(
        name="fwt",
        title="FWT",
        long_title="forward transfer",
        unit="points",
        better="higher",
        meaning="mean change of a task's score before its turn, from the initial model",
        formula=lambda scores: forward_transfer(scores.accuracy_matrix),
        in_table=False,
    ),
    Metric(
        name="average_incremental_accuracy",
        title="AIA",
        long_title="average incremental accuracy",
        unit="%",
        better="higher",
        meaning="mean over time of the mean score over the tasks seen",
        formula=lambda scores: average_incremental_accuracy(scores.acc_TT),
        in_table=False,
    ),
    Metric(
        name="learning_accuracy",
        title="learned",
        long_title="learning accuracy",
        unit="%",
        better="higher",
        meaning="mean score of a task right after it was trained",
        formula=lambda scores: learning_accuracy(scores.acc_TT),
    ),
    Metric(
        name="intransigence",
        title="intrans.",
        long_title="intransigence",
        unit="points",
        better="lower",
        meaning="mean of what a task, right after it was learnt, lacks to the reference run",
        formula=lambda scores: intransigence(scores.acc_TT, scores.reference_T),
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
) -> dict[str, float]:
    """The metrics that apply to a kind of run, by name, after `num_tasks` tasks and over these (default: all).

    The matrices have shape (T+1) x T, `reference_T` has a score for each task. A value is NaN where a score that it needs
    is, or is not given.
    """
    if num_tasks is None:
        num_tasks = accuracy_matrix.shape[1]
    if options_matrix is None:
        options_matrix = np.full_like(accuracy_matrix, NAN)
    if reference_T is None:
        reference_T = np.full(accuracy_matrix.shape[1], NAN)
    seen = MatrixScores(
        accuracy_matrix[: num_tasks + 1, :num_tasks],
        options_matrix[: num_tasks + 1, :num_tasks],
        test_sizes[:num_tasks],
        reference_T[:num_tasks],
    )
    # a metric that does not apply is left out; one that cannot be known yet is NaN
    values = {}
    for metric in METRICS.values():
        if metric.applies_to(kind):
            values[metric.name] = metric.formula(seen)
    return values
