"""Corpora from files, in every form, with one line on what is wrong in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streams import Corpus, Limits, resolve_source
from streams.sources.corpus import CorpusSource

TEXTS = ["first ç", " second, longer", "third"]


def open_corpus(test_fraction: float = 0.0, **settings: Any) -> Corpus:
    entry = {"source": "corpus", "tasks": [{"name": "a", **settings}], "test_fraction": test_fraction}
    name, kind, own = resolve_source("mine", entry)
    assert name == "corpus"
    (task,) = kind.model_validate(own).located().stream("mine", Limits(dev_fraction=0)).tasks
    assert isinstance(task, Corpus)
    return task


def write(file: Path) -> Path:
    """The texts in the form that the file's name says."""
    if file.suffix == ".parquet":
        import pandas

        pandas.DataFrame({"id": range(3), "text": TEXTS}).to_parquet(file)
        return file
    if ".txt" in file.suffixes:
        content = "\r\n".join(["", *TEXTS, "  ", ""]).encode()
    else:
        content = "\n\n".join(json.dumps({"text": text, "id": 1}) for text in TEXTS).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.json.gz", "a.ndjson", "a.parquet"])
def test_every_form_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    task = open_corpus(train=str(write(tmp_path / name)))
    assert list(task.documents("train")) == TEXTS
    assert task.source == f"corpus:{name}"


def test_blank_lines_may_stand_between_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\none\n two\n\n \nthree\r\n")
    task = open_corpus(train=str(tmp_path / "a.txt"), documents="blank-line")
    assert list(task.documents("train")) == ["one\n two", "three"]


def test_splits_are_files_of_their_own_or_held_out(tmp_path: Path) -> None:
    for name in ("x-b", "x-a", "test", "dev"):
        (tmp_path / f"{name}.txt").write_text(f"in {name}\n")
    files = {"train": str(tmp_path / "x-*.txt"), "test": str(tmp_path / "test.txt"), "dev": [str(tmp_path / "dev.txt")]}
    task = open_corpus(**files)
    assert [list(task.documents(s)) for s in ("train", "dev", "test")] == [
        ["in x-a", "in x-b"],
        ["in dev"],
        ["in test"],
    ]  # type: ignore[arg-type]
    (tmp_path / "c.txt").write_text("\n".join(map(str, range(200))))
    held_out = open_corpus(train=str(tmp_path / "c.txt"), test_fraction=0.5)
    assert 70 < held_out.size("test") < 130
    assert held_out.size("train") + held_out.size("test") == 200


def test_a_file_is_read_no_further_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\n")
    task = open_corpus(train=str(tmp_path / "a.txt"))
    assert next(task.documents("train")) == "good"
    with pytest.raises(ValueError, match=r"/a\.txt, line 2: not UTF-8 text$"):
        task.train_hash  # noqa: B018


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b" \n\n", r"^task 'a': .*/a\.txt holds no document$"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "x"}', r"/a\.jsonl, line 2: no column 'text' \(it has body\)$"),
        ("a.jsonl", b'{"text": 3}', r"/a\.jsonl, line 1: column 'text' holds int, expected a text$"),
        ("a.jsonl", b"{", r"/a\.jsonl, line 1: malformed JSON: .*$"),
        ("a.parquet", b"PAR1", r"/a\.parquet: no Parquet file: .*$"),
        ("a.txt.gz", b"plain", r"/a\.txt\.gz, after line 0: cannot be read: .*$"),
        ("a.txt.gz", gzip.compress(b"cut" * 99, mtime=0)[:-9], r"/a\.txt\.gz, after line 0: cannot be read: .*$"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_corpus(train=str(tmp_path / name)).train_hash  # noqa: B018
    assert "\n" not in str(caught.value)


def test_an_empty_file_among_others_and_a_missing_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text\n")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(ValueError, match=r"/b\.txt holds no document$"):
        open_corpus(train=[str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]).train_hash  # noqa: B018
    with pytest.raises(ValueError, match=r"^task 'a': no such file: .*/none\.txt$"):
        open_corpus(train=str(tmp_path / "none.txt")).train_hash  # noqa: B018


def test_a_wrong_column_of_a_table_names_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/a\.parquet: no column 'body' \(it has id, text\)$"):
        open_corpus(train=str(write(tmp_path / "a.parquet")), text="body").train_hash  # noqa: B018


@pytest.mark.parametrize("settings", [{}, {"train": ""}, {"train": []}, {"train": "a", "document": "line"}])
def test_settings_that_say_no_file_or_are_misspelt_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Field required|expected a file|Did you mean 'documents'"):
        open_corpus(**settings)


def test_files_of_a_general_corpus_are_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nsix\n")
    (tmp_path / "b.txt").write_text("red\nred\n\nblu\nblu\n\n")
    general = {"train": "b.txt", "share": 0.5, "documents": "blank-line"}
    monkeypatch.chdir(tmp_path)
    source = CorpusSource.model_validate({"tasks": [{"name": "law", "train": "a.txt", "mixture": general}]}).located()
    assert source.tasks[0].mixture is not None and source.tasks[0].mixture.train == (str(tmp_path / "b.txt"),)
    (task,) = source.model_copy(update={"test_fraction": 0.0}).stream("s", Limits(dev_fraction=0)).tasks
    assert isinstance(task, Corpus)
    assert list(task.documents("train")) == ["one", "red\nred", "two", "six", "blu\nblu"]
    with pytest.raises(ValueError, match="less than 1"):
        CorpusSource.model_validate({"tasks": [{"name": "law", "train": "a.txt", "mixture": {**general, "share": 1}}]})
