"""What a user is told who gives true or false for a number, or what is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

# No rate, weight, count or time is beyond it, nor a number of FLOPs
MOST_NUMBER = 1e30


def refuse_no_number(value: Any) -> None:
    """Raises ValueError for infinity and what is beyond all that is counted, alone or in a list or mapping."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            refuse_no_number(part)
    # a comparison with what is no number is false
    elif isinstance(value, float) and not abs(value) <= MOST_NUMBER:
        raise ValueError(f"found {value!r}; allowed: numbers up to {MOST_NUMBER:g}")


def refuse_boolean(value: Any, annotation: Any) -> None:
    """Raises ValueError for true or false, alone or in a list or mapping, where the annotation has no boolean.

    pydantic takes them for 1 and 0: `epochs: true` would train one epoch, and nobody would know why.
    """
    if _holds_boolean(value) and not _takes_boolean(annotation):
        raise ValueError(
            f"found {value!r} where a number or a text is expected (YAML reads yes, no, on and off so; quote a text)"
        )


def _takes_boolean(annotation: Any) -> bool:
    # a section of its own checks its own fields
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    # a Literal names its values, which may be true or false
    if annotation in (bool, Any) or isinstance(annotation, bool):
        return True
    return any(map(_takes_boolean, get_args(annotation)))


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)
