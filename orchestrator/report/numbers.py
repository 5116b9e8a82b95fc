"""Numbers as JSON and tables show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.evaluation.metrics import Matrix

# The largest first: the first that is not above a number is the one to write it in
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def plain_number(value: float | None) -> float | None:
    """A number for JSON, to six decimals; None for what is not known, since JSON has no NaN."""
    if value is None or math.isnan(value):
        return None
    return round(value, 6)


def plain_matrix(matrix: Matrix) -> list[list[float | None]]:
    """A matrix for JSON, as nested lists of `plain_number`s."""
    lists = []
    for scores in matrix.tolist():
        lists.append(list(map(plain_number, scores)))
    return lists


def known_of(values: Sequence[float | None]) -> list[float]:
    """The values that are known."""
    return [value for value in values if value is not None]


def mean_and_deviation(values: Sequence[float | None], digits: int = 1) -> str:
    """`43.0 ± 1.2`: the mean and the sample standard deviation of what is known."""
    known = known_of(values)
    if not known:
        return "–"
    # one value has no deviation
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return f"{np.mean(known):.{digits}f} ± {np.std(known, ddof=1):.{digits}f}"


def mean_usage(values: Sequence[float | None], unit: str) -> str:
    """The mean of what is known, in few letters: `41.2k` tokens, `3.1e12` FLOPs."""
    known = known_of(values)
    if not known:
        return "–"
    mean = float(np.mean(known))
    if mean == 0:
        return "0"
    if unit == "flops":
        # `e12` instead of Python's `e+12`
        digits, exponent = f"{mean:.1e}".split("e")
        return f"{digits}e{int(exponent)}"
    for scale, letter in _SCALES:
        if mean >= scale:
            return f"{mean / scale:.1f}{letter}"
    return f"{mean:.1f}"
