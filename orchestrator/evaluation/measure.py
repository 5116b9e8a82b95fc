"""What the numbers of a scorer are: their unit, the direction that is good, and how many digits are worth showing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """The unit of scores and the direction that is good; numbers in it are shown with so many `digits`."""

    unit: str = "%"
    better: Direction = "higher"
    digits: int = 1

    @property
    def sign(self) -> int:
        """What scores are multiplied by so that a higher one is better."""
        return 1 if self.better == "higher" else -1

    @property
    def unit_of_changes(self) -> str:
        """The unit of a difference between two scores."""
        return "points" if self.unit == "%" else self.unit


PERCENT = Measure()
