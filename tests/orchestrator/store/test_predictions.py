"""Predictions are read back as they were written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.predictions import (
    DamagedPredictions,
    Prediction,
    load_predictions,
    predictions_file,
    save_predictions,
)

FOUND = [
    Prediction(0, 12, "good", "good", True, 1.0, "good"),
    # line ends of Unicode, which are no line ends of JSON lines
    Prediction(1, 3, "bad", "two\nlines\u2028 and \x85 more, ünï", False, 0.0),
]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_predictions(tmp_path, "key", FOUND)
    assert load_predictions(tmp_path, "key") == FOUND
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["key.predictions.jsonl.gz"]


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    save_predictions(tmp_path, "one", FOUND)
    save_predictions(tmp_path, "other", FOUND)
    assert predictions_file(tmp_path, "one").read_bytes() == predictions_file(tmp_path, "other").read_bytes()


def test_none_were_kept(tmp_path: Path) -> None:
    assert load_predictions(tmp_path, "key") is None


def test_damage_is_said(tmp_path: Path) -> None:
    save_predictions(tmp_path, "key", FOUND)
    file = predictions_file(tmp_path, "key")
    whole = file.read_bytes()
    for damaged in (whole[:-9], whole[:40] + b"\xff" + whole[41:], b"not gzip"):
        file.write_bytes(damaged)
        with pytest.raises(DamagedPredictions, match=r"key\.predictions\.jsonl\.gz"):
            load_predictions(tmp_path, "key")
