"""A trial as Optuna's study is told of it, again and again: for each suggestion a study is made anew."""

from __future__ import annotations

import copy
from typing import Any, Self

from optuna.trial import FrozenTrial


class ToldTrial(FrozenTrial):
    """A trial that shares its values with its copies. Nothing changes a trial that a study was told of as it stands.

    A study copies each trial that it is told of, at ten times the cost of all else that it does with it.
    """

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """A trial with the same values."""
        told = cls.__new__(cls)
        told.__dict__.update(trial.__dict__)
        return told

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy.copy(self)
