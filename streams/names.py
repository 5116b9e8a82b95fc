"""What a user is told about a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line about a name that is not known: the nearest one, and all that there are."""
    names = list(known)
    hint = ""
    for near in difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        hint = f" Did you mean {near!r}?"
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(names)}"
