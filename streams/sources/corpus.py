"""Corpora from files: plain text, JSON lines or Parquet, wherever fsspec finds them, read a document at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from streams.corpora.corpus import Corpus, EndTask, Mixture, Read, corpus
from streams.sources.files import FileTask, file_task
from streams.sources.folder import canonical
from streams.sources.reading import Paths, find_files, form_of, full_path, json_row, lines_of, listed, name_of
from streams.sources.source import Source, SourceSettings
from streams.splits import Limits, Objective, Split
from streams.stream import Stream

# also `.json`, in which much of what is published is written, an object a line
JSON_LINES = (".jsonl", ".json", ".ndjson")


class EndTaskFiles(FileTask):
    """The labelled files of an end task, and how a copy of each state is fine-tuned on them.

    Defaults: the released code's of arXiv 2302.03241, whose number of epochs differs from task to task.
    """

    name: str = Field("", description="that of the corpus")
    epochs: int = Field(5, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(3e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class GeneralFiles(SourceSettings):
    """Files of a general corpus whose documents are mixed into a task's train split."""

    train: Paths
    share: float = Field(gt=0, lt=1, description="of the bytes of the mixed split, what is general")
    text: str = Field("text", description="of JSON lines and Parquet: the column of the text")
    documents: Literal["line", "blank-line"] = "line"


class CorpusFiles(SourceSettings):
    """One corpus: files of a split, one or several; `*` stands for any name, `.gz` and the like are unpacked.

    `.jsonl`, `.json` and `.ndjson` are read as an object a line, `.parquet` as a table, all else as plain text.
    """

    name: str
    train: Paths
    test: Paths | None = Field(None, description="by default documents of train are held out")
    dev: Paths | None = Field(None, description="by default documents of train are held out")
    text: str = Field("text", description="of JSON lines and Parquet: the column of the text")
    documents: Literal["line", "blank-line"] = Field(
        "line", description="of plain text: each line is a document, or blank lines stand between them"
    )
    mixture: GeneralFiles | None = Field(None, description="a general corpus that is mixed into train")
    end_task: EndTaskFiles | None = Field(
        None, description="labelled files: the score is that of a copy of the state which is fine-tuned on them"
    )

    @field_validator("train", "test", "dev")
    @classmethod
    def _some_file(cls, paths: Paths | None) -> Paths | None:
        if paths is not None and not all(listed(paths) or [""]):
            raise ValueError("expected a file, or a list of at least one")
        return paths


class CorpusSource(Source):
    """Corpora, in the given order."""

    objective: ClassVar[Objective] = "text"

    tasks: tuple[CorpusFiles, ...] = Field(min_length=1, description="the corpora, in order")
    test_fraction: float = Field(0.05, ge=0, lt=1, description="share of train held out where there are no test files")

    def located(self) -> Self:
        tasks = []
        for task in self.tasks:
            changes: dict[str, Any] = {}
            for split, paths in _paths(task).items():
                changes[split] = tuple(map(full_path, paths))
            if task.mixture is not None:
                general = tuple(map(full_path, listed(task.mixture.train)))
                changes["mixture"] = task.mixture.model_copy(update={"train": general})
            if task.end_task is not None:
                changes["end_task"] = task.end_task.located()
            tasks.append(task.model_copy(update=changes))
        return self.model_copy(update={"tasks": tuple(tasks)})

    def stream(self, name: str, limits: Limits) -> Stream:
        tasks = []
        for task in self.tasks:
            tasks.append(corpus_task(task, limits, self.test_fraction))
        return Stream(name, tuple(tasks))


def corpus_task(spec: CorpusFiles, limits: Limits = Limits(), test_fraction: float = 0.05) -> Corpus:
    """The corpus that `spec` describes. Reads nothing."""
    parts: dict[Split, Read] = {}
    for split, paths in _paths(spec).items():
        parts[split] = partial(read_documents, spec, paths)
    first = PurePosixPath(listed(spec.train)[0])
    end_task = None
    if spec.end_task is not None:
        end_task = _end_task(spec.end_task.model_copy(update={"name": spec.name}), limits)
    return corpus(
        spec.name,
        f"corpus:{first.name}",
        parts,
        limits,
        test_fraction,
        canonical(spec.name),
        end_task,
        _mixture(spec),
    )


def _mixture(spec: CorpusFiles) -> Mixture | None:
    general = spec.mixture
    if general is None:
        return None
    form = {"text": general.text, "documents": general.documents}
    read = partial(read_documents, spec.model_copy(update=form), listed(general.train))
    return Mixture(read, general.share)


def _end_task(spec: EndTaskFiles, limits: Limits) -> EndTask:
    # a limit of train is one of documents
    task = file_task(spec, replace(limits, max_train=None))
    if len(task.labels) < 2:
        raise ValueError(f"task {spec.name!r}: end_task: {len(task.labels)} labels: there is nothing to tell apart")
    return EndTask(task, spec.epochs, spec.batch, spec.lr, spec.weight_decay)


def _paths(spec: CorpusFiles) -> Mapping[Split, Sequence[str]]:
    """The paths of each split that has files."""
    paths: dict[Split, Sequence[str]] = {"train": listed(spec.train)}
    if spec.test is not None:
        paths["test"] = listed(spec.test)
    if spec.dev is not None:
        paths["dev"] = listed(spec.dev)
    return paths


def read_documents(spec: CorpusFiles, paths: Sequence[str]) -> Iterator[str]:
    """The documents of files, in order; what has no text but blanks is none. Raises ValueError where a file has none."""
    for path in paths:
        for file in find_files(spec.name, path):
            is_empty = True
            for document in _documents(spec, path, file):
                if document.strip():
                    is_empty = False
                    yield document
            # of many files one that lacks its text would never be missed
            if is_empty:
                raise ValueError(f"task {spec.name!r}: {name_of(file)} holds no document")


def _documents(spec: CorpusFiles, path: str, file: Any) -> Iterator[str]:
    form = form_of(path)
    if form in JSON_LINES:
        return _json_lines(file, spec.text)
    if form == ".parquet":
        return _parquet(file, spec.text)
    if spec.documents == "blank-line":
        return _paragraphs(file)
    return _lines(file)


def _lines(file: Any) -> Iterator[str]:
    for _, line in lines_of(file):
        yield line.rstrip("\r\n")


def _paragraphs(file: Any) -> Iterator[str]:
    lines: list[str] = []
    for _, line in lines_of(file):
        if line.strip():
            lines.append(line.rstrip("\r\n"))
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _json_lines(file: Any, column: str) -> Iterator[str]:
    for number, line in lines_of(file):
        if line.strip():
            where = f"{name_of(file)}, line {number}"
            row = json_row(line, where)
            if column not in row:
                raise ValueError(f"{where}: no column {column!r} (it has {', '.join(row)})")
            yield _text(row[column], column, where)


def _parquet(file: Any, column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with file as stream:
            table = pyarrow.parquet.ParquetFile(stream)
            has = table.schema_arrow.names
            if column not in has:
                raise ValueError(f"{name_of(file)}: no column {column!r} (it has {', '.join(has)})")
            for batch in table.iter_batches(columns=[column], batch_size=1024):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield _text(value, column, f"{name_of(file)}, row {number}")
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name_of(file)}: no Parquet file: {reason}") from None


def _text(value: object, column: str, where: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{where}: column {column!r} holds {type(value).__name__}, expected a text")
