"""What is found to be damaged, and what can be done about it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Remedy(StrEnum):
    """How a damaged file becomes what it was."""

    FROM_STORE = "told again by the store"
    FROM_JOURNAL = "told again by the journal"
    EVALUATE = "computed again by `orchestrator evaluate`"
    TRAIN = "trained again by the same `orchestrator run` or `tune` command"
    REWRITE = "written anew by the same `orchestrator run` or `tune` command"
    UNNEEDED = "not needed any more"
    NONE = "cannot be had again"


@dataclass(frozen=True)
class Finding:
    """A file that is not what was written: what is wrong with it, and what can be done."""

    file: Path
    what: str
    remedy: Remedy


def put_aside(path: Path) -> None:
    """Give a damaged file another name, under which nobody reads it and a person can."""
    # a number of its own: the same file may turn out damaged once more
    path.rename(path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:6]}"))
