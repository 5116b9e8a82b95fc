"""The formulas of continual-learning metrics over an accuracy matrix of scores of which a higher one is better.

`accuracy_matrix` has shape (T+1) x T: the score on each task of the state after `tasks_seen` tasks, of which the first is
the initial model (`tasks_seen` 0); NaN where nothing was measured. Only forward transfer needs scores on tasks before their
turn. `acc_TT` is its part after training: the t-th is the score on every task after t = 1..T tasks. Each result is a mean
over tasks, or over those of `tasks` alone (default: all); NaN where there is none.
Average accuracy, backward transfer (arXiv 1706.08840), forgetting and intransigence (arXiv 1801.10112).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Tasks = Sequence[int] | None

NAN = float("nan")


def as_matrix(scores: Sequence[Sequence[float | None]]) -> Matrix:
    """A float array from nested lists in which None means not measured."""
    # numpy makes NaN of None where it is told the type
    return np.array(scores, dtype=np.float64)


def average_accuracy(acc_TT: Matrix, tasks: Tasks = None) -> float:
    """AA (macro): mean_j a[T, j], the mean score over tasks after the last one. Higher is better."""
    return _mean(acc_TT[-1], tasks)


def micro_average_accuracy(acc_TT: Matrix, test_sizes: Sequence[int], tasks: Tasks = None) -> float:
    """Micro AA: the mean score over test examples instead of tasks, after the last task. Higher is better."""
    chosen = _chosen(acc_TT.shape[1], tasks)
    weights = np.asarray(test_sizes, dtype=np.float64)[chosen]
    # of tasks without a score nobody knows the size
    if not weights.sum():
        return NAN
    return float(np.average(acc_TT[-1, chosen], weights=weights))


def backward_transfer(acc_TT: Matrix, tasks: Tasks = None) -> float:
    """BWT: mean_{j<T} (a[T, j] - a[j, j]), signed; NaN for one task. Higher is better."""
    right_after_training = np.diagonal(acc_TT)
    return _mean(acc_TT[-1, :-1] - right_after_training[:-1], tasks)


def forgetting(acc_TT: Matrix, tasks: Tasks = None) -> float:
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
    return _mean(best_before - acc_TT[-1, :-1], tasks)


def learning_accuracy(acc_TT: Matrix, tasks: Tasks = None) -> float:
    """Learning accuracy: mean_j a[j, j], the mean score of a task right after it was trained. Higher is better."""
    return _mean(np.diagonal(acc_TT), tasks)


def average_incremental_accuracy(acc_TT: Matrix, tasks: Tasks = None) -> float:
    """Average incremental accuracy: mean_t mean_{j<=t} a[t, j], over the tasks seen by then. Higher is better."""
    chosen = _chosen(acc_TT.shape[1], tasks)
    means = []
    for task_id, scores in enumerate(acc_TT):
        # before the first of the chosen tasks there is nothing to average
        if chosen and task_id >= chosen[0]:
            means.append(_mean(scores[: task_id + 1], chosen))
    if not means:
        return NAN
    return float(np.mean(means))


def forward_transfer(accuracy_matrix: Matrix, tasks: Tasks = None) -> float:
    """FWT: mean_{j>1} (a[j-1, j] - a[0, j]), from the (T+1) x T matrix; NaN for one task. Higher is better."""
    gains = []
    for task_id in _chosen(accuracy_matrix.shape[1], tasks):
        # `task_id` tasks were seen right before the turn of task `task_id`; the first one's turn was the first
        if task_id > 0:
            gains.append(accuracy_matrix[task_id, task_id] - accuracy_matrix[0, task_id])
    if not gains:
        return NAN
    return float(np.mean(gains))


def intransigence(acc_TT: Matrix, reference_T: Matrix, tasks: Tasks = None) -> float:
    """Intransigence: mean_j (a*_j - a[j, j]), a*_j being a reference run's score on task j. Lower is better.

    In the paper a* is that of a model trained on tasks 1 to j together. A reference run here is trained on all T tasks
    at once (joint) or on task j alone (expert), so for j < T our a* is another upper bound than the paper's.
    """
    return _mean(reference_T - np.diagonal(acc_TT), tasks)


def _chosen(num_tasks: int, tasks: Tasks) -> list[int]:
    if tasks is None:
        return list(range(num_tasks))
    return [task_id for task_id in sorted(tasks) if task_id < num_tasks]


def _mean(values: Matrix, tasks: Tasks) -> float:
    """The mean of the values of the chosen tasks, of which the values may lack the last."""
    chosen = _chosen(len(values), tasks)
    # numpy warns of a mean of nothing
    if not chosen:
        return NAN
    return float(np.mean(values[chosen]))
