"""Tasks from files of rows: JSON lines, CSV, Parquet; wherever fsspec finds them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import Field, field_validator

from streams.sources.columns import ColumnTask, Row
from streams.sources.folder import canonical
from streams.sources.reading import Paths, find_files, form_of, full_path, json_row, lines_of, listed, name_of
from streams.sources.source import Source
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task

# more than any classification data set of the field has; free answers have as many as there are rows
MOST_LABELS = 500


class FileTask(ColumnTask):
    """A task whose splits are files: one or several, `*` stands for any name, `.gz` and the like are unpacked.

    Without `labels` the label set is what the train files have, in alphabetical order; of more than 500 it has to be said
    whether they are labels or open answers (`labels: []`).
    """

    train: Paths = Field(description="files of rows: .jsonl, .json (a list), .csv, .tsv or .parquet")
    test: Paths
    test_text: str | tuple[str, ...] | None = Field(None, description="`text` of the test files, where it is another")
    test_label: str | None = Field(None, description="`label` of the test files, where it is another")

    @field_validator("train", "test")
    @classmethod
    def _some_file(cls, paths: Paths) -> Paths:
        for path in listed(paths):
            if form_of(path) not in READERS:
                raise ValueError(f"{path!r}: expected a name that ends in {', '.join(READERS)} (or these with .gz)")
        if not paths:
            raise ValueError("expected a file, or a list of at least one")
        return paths

    def located(self) -> Self:
        """The same with full paths."""
        train = tuple(map(full_path, listed(self.train)))
        test = tuple(map(full_path, listed(self.test)))
        return self.model_copy(update={"train": train, "test": test})

    def example(self, row: Row, labels: Sequence[str]) -> Example:
        """A row as an example; a cell of CSV, which holds texts alone, may hold an index too."""
        value = row.get(self.label)
        if isinstance(value, str) and value not in labels and value.isascii() and value.isdigit():
            row = {**row, self.label: int(value)}
        return super().example(row, labels)

    def of_split(self, split: RawSplit) -> FileTask:
        """The same task, read by the columns of a split's files."""
        if split == "train":
            return self
        # validated, as what a user writes for train is
        return self.model_validate(
            {**self.model_dump(), "text": self.test_text or self.text, "label": self.test_label or self.label}
        )


class FilesSource(Source):
    """Tasks whose rows lie in files, in the given order."""

    tasks: tuple[FileTask, ...] = Field(min_length=1, description="the tasks, in order")

    @classmethod
    def recognises(cls, settings: Mapping[str, Any]) -> bool:
        tasks = settings.get("tasks")
        return isinstance(tasks, list | tuple) and any(isinstance(task, Mapping) and "train" in task for task in tasks)

    def located(self) -> Self:
        tasks = tuple(task.located() for task in self.tasks)
        return self.model_copy(update={"tasks": tasks})

    def stream(self, name: str, limits: Limits) -> Stream:
        tasks = []
        for task in self.tasks:
            tasks.append(file_task(task, limits))
        return Stream(name, tuple(tasks))


def file_task(spec: FileTask, limits: Limits = Limits()) -> Task:
    """The task that `spec` describes. Reads the train files where their labels are asked for, the test files never."""
    labels = spec.labels
    if labels is None:
        labels = _labels_in(spec)
    # labels that were found are texts: an integer among them is no index
    counted = spec.labels or ()
    first = PurePosixPath(listed(spec.train)[0])
    return spec.task(labels, f"files:{first.name}", partial(_load, spec, counted), limits, canonical(spec.name))


def _labels_in(spec: FileTask) -> tuple[str, ...]:
    labels = set()
    for example in _load(spec, (), "train"):
        labels.add(example.label)
    if len(labels) > MOST_LABELS:
        raise ValueError(
            f"task {spec.name!r}: column {spec.label!r} has {len(labels)} different texts; give `labels` ([]: answers are open)"
        )
    return tuple(sorted(labels))


def _load(spec: FileTask, labels: Sequence[str], split: RawSplit) -> Sequence[Example]:
    spec = spec.of_split(split)
    examples: list[Example] = []
    rows: list[Row] = []
    for path in listed({"train": spec.train, "test": spec.test}[split]):
        for file in find_files(spec.name, path):
            checked: list[str] | None = None
            for row in READERS[form_of(path)](file):
                # a column may be missing in one row alone, of JSON lines
                if list(row) != checked:
                    checked = list(row)
                    spec.check_columns(checked, f"{name_of(file)}, row {len(examples) + 1}")
                examples.append(spec.example(row, labels))
                rows.append(row)
    return spec.timed(examples, rows, f"the {split} files")


def _json_lines(file: Any) -> Iterator[Row]:
    for number, line in lines_of(file):
        if line.strip():
            yield json_row(line, f"{name_of(file)}, line {number}")


def _json_list(file: Any) -> Iterator[Row]:
    """The rows of a JSON list; of a file that begins with an object, its lines'."""
    text = "".join(line for _, line in lines_of(file))
    if text.lstrip().startswith("{"):
        yield from _json_lines(file)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name_of(file)}, line {error.lineno}: malformed JSON: {error.msg}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{name_of(file)}: expected a list of rows, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{name_of(file)}, row {number}: expected an object with a value for each column")
        yield row


def _separated(file: Any, delimiter: str) -> Iterator[Row]:
    # a quoted cell may hold line ends, so that the whole is read as one text
    text = "".join(line for _, line in lines_of(file))
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            # cells without a column have the key None, columns without a cell the value None
            if None in row or None in row.values():
                raise ValueError(
                    f"{name_of(file)}, line {reader.line_num}: as many cells as the first line has are expected, "
                    f"{len(reader.fieldnames or ())}"
                )
            yield row
    except csv.Error as error:
        raise ValueError(f"{name_of(file)}, after line {reader.line_num}: malformed CSV: {error}") from None


def _parquet(file: Any) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with file as stream:
            for batch in pyarrow.parquet.ParquetFile(stream).iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{name_of(file)}: no Parquet file: {error}") from None


READERS: dict[str, Callable[[Any], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".parquet": _parquet,
}
