"""Scores, each in a file of its own under the key of what it depends on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.folders import contents_of
from orchestrator.store.integrity import seal, unseal, write_whole

logger = logging.getLogger(__name__)


def score_file(root: Path, key: str) -> Path:
    """Where the score of that key is, or would be."""
    return root / "scores" / f"{key}.json"


def load_score(root: Path, key: str) -> dict[str, Any] | None:
    """A score and what is recorded with it; None where it has to be computed."""
    return load_scores(root, [key]).get(key)


def load_scores(root: Path, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The scores that are there by their keys, each with what is recorded with it.

    One whose file is damaged is not there: it is computed again.
    """
    # each once: tasks that come again have one
    files = {key: score_file(root, key) for key in keys}
    records: dict[str, dict[str, Any]] = {}
    for key, content in zip(files, contents_of(list(files.values())), strict=True):
        if content is None:
            continue
        try:
            records[key] = unseal(content)
        except ValueError as error:
            logger.info("%s: %s; the score is computed again", files[key], error)
    return records


def save_score(root: Path, key: str, record: Mapping[str, Any]) -> None:
    """Keep a score with what is recorded with it."""
    write_whole(score_file(root, key), seal(record) + b"\n")
