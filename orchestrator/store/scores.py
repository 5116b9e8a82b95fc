"""Scores, each in a file of its own under the key of what it depends on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.integrity import seal, unseal, write_whole

logger = logging.getLogger(__name__)


def score_file(root: Path, key: str) -> Path:
    """Where the score of that key is, or would be."""
    return root / "scores" / f"{key}.json"


def load_score(root: Path, key: str) -> dict[str, Any] | None:
    """A score and what is recorded with it; None where there is none, or where the file is damaged: it is computed again."""
    file = score_file(root, key)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return unseal(content)
    except ValueError as error:
        logger.info("%s: %s; the score is computed again", file, error)
        return None


def save_score(root: Path, key: str, record: Mapping[str, Any]) -> None:
    """Keep a score with what is recorded with it."""
    write_whole(score_file(root, key), seal(record) + b"\n")
