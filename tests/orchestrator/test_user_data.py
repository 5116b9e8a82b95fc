"""Data as users have it: many labels, other scripts, texts of no words and of very many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

Rows = Sequence[tuple[str, str]]


def write_task(folder: Path, name: str, labels: list[str], train: Rows, test: Rows) -> None:
    """A task of the folder layout."""
    path = folder / "X" / name
    path.mkdir(parents=True)
    (path / "labels.json").write_text(json.dumps(labels))
    for split, rows in (("train", train), ("test", test)):
        listed = [{"sentence": text, "label": label} for text, label in rows]
        (path / f"{split}.json").write_text(json.dumps(listed, ensure_ascii=False))


def rows_of(labels: list[str], texts: list[str], first: int, count: int) -> Rows:
    """Numbered rows with a text for each label."""
    rows = []
    for i in range(first, first + count):
        rows.append((f"{i} {texts[i % len(labels)]}", labels[i % len(labels)]))
    return rows


def scores(folder: Path, tasks: list[str], model: str, max_train: int, epochs: int) -> list[float]:
    """Of each task the score right after it was trained."""
    streams = [{"name": "mine", "folder": str(folder), "tasks": tasks, "prompt": "plain", "max_train": max_train}]
    config = small_config(
        folder / "out" / model,
        model=model,
        streams=streams,
        training={"epochs": epochs, "lr": 3e-3},
        evaluation={"rows": "seen"},
    )
    (sequence,) = plan(config)
    view = run_sequence(sequence)
    assert view.status == "finished"
    matrix = view.matrix()
    return [float(matrix[i + 1, i]) for i in range(len(tasks))]


def test_other_scripts_are_read_and_written(tmp_path: Path) -> None:
    """A small T5, which spells them in bytes, learns to answer in Chinese, Arabic and emoji."""
    labels = ["好", "نعم", "👎"]
    texts = ["这部电影很精彩", "رائع جدا", "😡👨‍👩‍👧"]
    write_task(tmp_path, "scripts", labels, rows_of(labels, texts, 0, 60), rows_of(labels, texts, 60, 9))
    assert scores(tmp_path, ["scripts"], "tiny-t5", 48, 8)[0] > 80


def test_a_hundred_labels_no_words_and_very_long_texts(tmp_path: Path) -> None:
    labels = [f"label {i}" for i in range(100)]
    write_task(tmp_path, "hundred", labels, rows_of(labels, labels, 0, 100), rows_of(labels, labels, 100, 20))
    odd = ["", " \t\n", "\x00\x07\u2028\ufeff", "...", "word " * 20_000, "x" * 100_000]
    write_task(tmp_path, "odd", ["a", "b"], [(text, "a") for text in odd] + [("b", "b")], [("y" * 100_000, "b")])
    for model in ("tiny-t5", "tiny-llama", "tiny-bert"):
        (_, one) = scores(tmp_path, ["hundred", "odd"], model, 24, 1)
        assert one in (0, 100)
