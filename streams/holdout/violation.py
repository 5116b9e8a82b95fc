"""The error of a search whose two sides are too close."""

from __future__ import annotations


class HoldoutViolation(ValueError):
    """Tuning and evaluation are not as far apart as the level demands."""
