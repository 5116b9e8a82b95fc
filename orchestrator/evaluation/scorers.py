"""TODO orchestrator.evaluation.scorers"""

from __future__ import annotations

from streams import normalise_answer


def is_correct(answer: str, label: str) -> bool:
    """Exact match after the published normalisation."""
    return normalise_answer(answer) == normalise_answer(label)
