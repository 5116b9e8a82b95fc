"""What a user is told about a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import PurePosixPath

MOST_OF_A_NAME = 100


def check_name(what: str, name: str) -> None:
    """Raises ValueError for a name that no table, file or metric can be called by, or that leads out of its folder."""
    reason = ""
    if not name.strip():
        reason = "it is empty"
    elif len(name) > MOST_OF_A_NAME:
        reason = f"it has {len(name)} characters; allowed: up to {MOST_OF_A_NAME}"
    elif not name.isprintable():
        reason = "it has characters that cannot be printed"
    elif name.startswith("/") or set(PurePosixPath(name).parts) <= {"."} or ".." in PurePosixPath(name).parts:
        reason = "it is a path that leads elsewhere"
    if reason:
        raise ValueError(f"{name[:40]!r} is no name of a {what}: {reason}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line about a name that is not known: the nearest one, and all that there are."""
    names = list(known)
    hint = ""
    for near in difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        hint = f" Did you mean {near!r}?"
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(names)}"
