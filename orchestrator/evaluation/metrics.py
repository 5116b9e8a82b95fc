"""Continual-learning metrics from an accuracy matrix.

acc_TT: row t = 1..T is the score on every task after training task t, in %; cells may be NaN where nothing was measured.
A *full* matrix has one row more, row 0: before any training. All results are in % or percentage points.
Formulas: average accuracy, backward transfer (arXiv 1706.08840), forgetting (arXiv 1801.10112).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def as_matrix(rows: Sequence[Sequence[float | None]]) -> Matrix:
    """A float array from rows in which None means not measured."""
    return np.array([[np.nan if cell is None else cell for cell in row] for row in rows], dtype=np.float64)


def average_accuracy(acc_TT: Matrix) -> float:
    """AA (macro): mean_j a[T, j]. Higher is better."""
    return float(np.mean(acc_TT[-1]))


def micro_average_accuracy(acc_TT: Matrix, test_sizes: Sequence[int]) -> float:
    """AA over examples instead of tasks. Higher is better."""
    return float(np.average(acc_TT[-1], weights=np.asarray(test_sizes, dtype=np.float64)))


def backward_transfer(acc_TT: Matrix) -> float:
    """BWT: mean_{j<T} (a[T, j] - a[j, j]), signed; NaN for one task. Higher is better."""
    learnt = np.diagonal(acc_TT)
    return float(np.mean(acc_TT[-1, :-1] - learnt[:-1])) if len(acc_TT) > 1 else float("nan")


def forgetting(acc_TT: Matrix) -> float:
    """mean_{j<T} (max_{1<=s<T} a[s, j] - a[T, j]); NaN for one task. Lower is better."""
    if len(acc_TT) < 2:
        return float("nan")
    return float(np.mean(np.nanmax(acc_TT[:-1, :-1], axis=0) - acc_TT[-1, :-1]))


def learning_accuracy(acc_TT: Matrix) -> float:
    """mean_j a[j, j]. Higher is better."""
    return float(np.mean(np.diagonal(acc_TT)))


def average_incremental_accuracy(acc_TT: Matrix) -> float:
    """mean_t mean_{j<=t} a[t, j]. Higher is better."""
    return float(np.mean([np.mean(row[: t + 1]) for t, row in enumerate(acc_TT)]))


def forward_transfer(full: Matrix) -> float:
    """FWT: mean_{j>1} (a[j-1, j] - a[0, j]), from a matrix with row 0; NaN for one task. Higher is better."""
    if full.shape[1] < 2:
        return float("nan")
    return float(np.mean([full[j, j] - full[0, j] for j in range(1, full.shape[1])]))


def summary(full: Matrix, test_sizes: Sequence[int], upto: int | None = None) -> dict[str, float]:
    """All metrics after task `upto` (default: the last), over the first `upto` tasks, from a matrix with row 0."""
    tasks = full.shape[1] if upto is None else upto
    part = full[: tasks + 1, :tasks]
    acc_TT = part[1:]
    return {
        "aa": average_accuracy(acc_TT),
        "micro_aa": micro_average_accuracy(acc_TT, test_sizes[:tasks]),
        "bwt": backward_transfer(acc_TT),
        "forgetting": forgetting(acc_TT),
        "fwt": forward_transfer(part),
        "average_incremental_accuracy": average_incremental_accuracy(acc_TT),
        "learning_accuracy": learning_accuracy(acc_TT),
    }


def of_a_reference_run(values: dict[str, float]) -> dict[str, float]:
    """What a summary says of a method that learns no sequence, and so forgets none."""
    return {key: value for key, value in values.items() if key in ("aa", "micro_aa")}
