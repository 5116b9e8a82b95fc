"""Data that a process keeps: read once for many sequences, noted for each, and never that of another plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config.stream import StreamConfig
from orchestrator.planning import kept_streams
from orchestrator.planning.kept_streams import MOST_KEPT, kept_stream
from orchestrator.planning.planner import plan
from orchestrator.store.access_log import TestAccessLog
from streams import Corpus, SealedSplit, Split, Stream
from tests.conftest import small_config
from tests.orchestrator.search.searches import sentences, write_tasks, write_test_split


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which streams are built, from a state in which nothing is kept."""
    monkeypatch.setattr(kept_streams, "_kept", {})
    original = StreamConfig.build
    names: list[str] = []

    def counted(config: StreamConfig) -> Stream:
        names.append(config.name)
        return original(config)

    monkeypatch.setattr(StreamConfig, "build", counted)
    return names


def readings(out: Path) -> Iterator[tuple[str, str]]:
    for entry in TestAccessLog(out).entries():
        if entry["by"] != "plan":
            yield entry["by"], entry["task"]


def test_two_sequences_of_one_stream_read_it_once_and_are_both_noted(built: list[str], tmp_path: Path) -> None:
    first, second = plan(small_config(tmp_path, stream={"first": 2}, seeds=[1, 2]))
    built.clear()
    data = []
    for sequence in (first, second, first):
        stream = kept_stream(sequence)
        data.append([task.read("test") for task in stream.tasks])
    assert built == ["embedded"]
    assert data[0] == data[1]
    assert data[0][0] is data[1][0]
    # the third is another reading by the first
    expected = [(sequence.id, task) for sequence in (first, second, first) for task in first.tasks]
    assert sorted(readings(tmp_path)) == sorted(expected)


def test_what_tuning_opens_is_sealed_whatever_was_read(built: list[str], tmp_path: Path) -> None:
    (sequence,) = plan(small_config(tmp_path, stream={"first": 2}))
    kept_stream(sequence).tasks[0].read("test")
    tuning = sequence.model_copy(update={"split": "dev"})
    with pytest.raises(SealedSplit):
        kept_stream(tuning).tasks[0].read("test")
    assert kept_stream(sequence).tasks[0].read("test"), "nor is the evaluation's sealed by it"


def test_data_that_changed_before_it_was_planned_anew_is_read_anew(built: list[str], tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "data", {"one": sentences("old")})
    write_test_split(folder, "one", sentences("test"))
    config = small_config(tmp_path / "out", streams=[{"name": "mine", "folder": str(folder), "tasks": ["one"]}])
    (before,) = plan(config)
    assert "old" in kept_stream(before).tasks[0].read("train")[0].text
    file = folder / "SC" / "one" / "train.json"
    file.write_text(file.read_text().replace("old", "new"))
    (after,) = plan(config)
    built.clear()
    for _ in range(2):
        assert "new" in kept_stream(after).tasks[0].read("train")[0].text
    assert built == ["mine"]


def test_few_streams_are_kept(built: list[str], tmp_path: Path) -> None:
    """And of these those that were asked for last."""
    sequences = []
    for first in range(1, MOST_KEPT + 2):
        sequences += plan(small_config(tmp_path, stream={"first": first}))
    built.clear()
    for sequence in (*sequences[:-1], sequences[0], sequences[-1], sequences[0]):
        kept_stream(sequence)
    assert len(built) == MOST_KEPT + 1
    kept_stream(sequences[1])
    assert len(built) == MOST_KEPT + 2


def test_a_corpus_is_hashed_once_for_all_sequences_of_a_process(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora = {"name": "embedded-cpt", "first": 1, "max_train": 3, "max_test": 2}
    first, second = plan(small_config(tmp_path, model="tiny-llama", stream=corpora, seeds=[1, 2]))
    data = kept_stream(first)
    assert data.tasks[0].train_hash != data.tasks[0].test_hash
    passes: list[str] = []
    documents = Corpus.documents

    def counted(task: Corpus, split: Split) -> Iterator[str]:
        passes.append(split)
        return documents(task, split)

    monkeypatch.setattr(Corpus, "documents", counted)
    again = kept_stream(second)
    # asked for by `is_unchanged`, which makes all keys anew
    assert again.tasks[0].train_hash == data.tasks[0].train_hash
    assert passes == []
