"""Draws that depend on a seed and on what they are for, and on nothing else: neither on other draws nor on Python's version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def draw(*parts: object) -> float:
    """A number from 0 (with it) to 1 (without it) for a seed and what it is drawn for."""
    # 52 bits, all of which a float holds
    return int(_digest(parts)[:13], 16) / 16**13


def in_drawn_order(names: Iterable[str], *parts: object) -> list[str]:
    """The names in the order that the parts draw. It depends on the set of names, not on how they are listed."""

    def rank(name: str) -> tuple[str, str]:
        return _digest((*parts, name)), name

    return sorted(names, key=rank)


def weighted_choice(weights: Sequence[float], drawn: float) -> int:
    """The index to which a number from 0 to 1 points, where each index has a share by its weight."""
    remaining = drawn * sum(weights)
    last = 0
    for index, weight in enumerate(weights):
        if weight <= 0:
            continue
        if remaining < weight:
            return index
        remaining -= weight
        last = index
    # rounding may leave a little over behind the last one
    return last


def _digest(parts: Iterable[object]) -> str:
    text = "\n".join(map(str, parts))
    return hashlib.sha256(text.encode()).hexdigest()
