"""FUAR: what is forgotten of old knowledge, for what is updated and acquired (arXiv 2110.03215)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.evaluation.measure import Direction
from orchestrator.evaluation.metrics import Matrix

NO_GAIN = "no gain"


def fuar(
    accuracy_matrix: Matrix,
    forgotten: Sequence[int],
    updated: Sequence[int],
    acquired: Sequence[int],
    better: Direction = "higher",
) -> float | str:
    """sum_f max(0, drop of f) / (sum_u max(0, gain of u) + sum_a max(0, gain of a)), or "no gain" where that divisor is 0.

    Tasks are given by their numbers in the (T+1) x T matrix. `forgotten` are those of knowledge that should stay: their drop
    is from right after they were learnt to the end. The gain of a task of `updated` or `acquired` knowledge is from right
    before its own turn to the end. 0 is best; below 1 more was gained than was forgotten.

    The paper adds up gaps over its corpora, each of which has sets of questions. We take a corpus and its questions for one
    task, and count the gain of each once.
    """
    sign = -1.0 if better == "lower" else 1.0
    last = accuracy_matrix[-1]
    lost = 0.0
    for task_id in forgotten:
        lost += max(0.0, sign * (accuracy_matrix[task_id + 1, task_id] - last[task_id]))
    gained = 0.0
    for task_id in (*updated, *acquired):
        gained += max(0.0, sign * (last[task_id] - accuracy_matrix[task_id, task_id]))
    if gained == 0:
        return NO_GAIN
    return float(lost / gained)
