"""How the columns of a table read as examples: what sources of rows have in common."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator

from streams.prompts import BENCHMARK, find_prompt
from streams.scorer_names import check_scorer
from streams.sources.source import SourceSettings, times_of
from streams.splits import Example, Limits, RawSplit
from streams.task import DEFAULT_SCORER, Task

Row = Mapping[str, Any]


class ColumnTask(SourceSettings):
    """A task of a table's rows. Its `labels` are texts: a label column that holds integers counts in them."""

    name: str
    text: str | tuple[str, ...] = Field(
        "text",
        description="a column, several (a line each), or a text with columns in braces: '{question}\\n{passage}'",
    )
    label: str = Field("label", description="the column of the answer, or a text with columns in braces")
    labels: tuple[str, ...] | None = Field(None, description="the label set; []: answers are open")
    time: str | None = Field(None, description="the column that says when a row is from, by which `time-slices` cuts")
    instruction: str = ""
    category: str = ""
    prompt: str | None = Field(None, description="a prompt's name or template")
    scorer: str | None = Field(None, description="a scorer's name")

    @field_validator("text")
    @classmethod
    def _some_column(cls, text: str | tuple[str, ...]) -> str | tuple[str, ...]:
        # every text would be empty, and its label a guess
        if not text:
            raise ValueError("expected a column's name, or a list of at least one")
        if isinstance(text, str) and "{" in text and not _columns_in(text):
            raise ValueError(f"{text!r} names no column in its braces")
        return text

    @field_validator("label")
    @classmethod
    def _some_label(cls, label: str) -> str:
        if not label or ("{" in label and not _columns_in(label)):
            raise ValueError(f"{label!r} names no column")
        return label

    @field_validator("prompt")
    @classmethod
    def _is_prompt(cls, prompt: str | None) -> str | None:
        if prompt is not None:
            find_prompt(prompt)
        return prompt

    @field_validator("scorer")
    @classmethod
    def _is_scorer(cls, scorer: str | None) -> str | None:
        if scorer is not None:
            check_scorer(scorer)
        return scorer

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns whose texts make up an example's text."""
        if not isinstance(self.text, str):
            return self.text
        if "{" in self.text:
            return _columns_in(self.text)
        return (self.text,)

    def text_of(self, row: Row) -> str:
        """A row's text."""
        if isinstance(self.text, str) and "{" in self.text:
            return _filled(self.text, row)
        lines = []
        for column in self.text_columns:
            lines.append(_as_text(row[column]))
        return "\n".join(lines)

    def check_columns(self, has: Iterable[str], where: str) -> None:
        """Raises ValueError where a table lacks a column that is read."""
        needed = [*self.text_columns]
        if "{" in self.label:
            needed.extend(_columns_in(self.label))
        else:
            needed.append(self.label)
        if self.time is not None:
            needed.append(self.time)
        for column in needed:
            if column not in has:
                raise ValueError(f"task {self.name!r}: {where} has no column {column!r} (it has {', '.join(has)})")

    def example(self, row: Row, labels: Sequence[str]) -> Example:
        """A row as an example. An index outside the label set (-1 marks unlabelled rows) is a label that no text has."""
        if "{" in self.label:
            return Example(self.text_of(row), _filled(self.label, row))
        value = row[self.label]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
            return Example(self.text_of(row), labels[value])
        return Example(self.text_of(row), _as_text(value))

    def timed(self, examples: Sequence[Example], rows: Sequence[Row], where: str) -> Sequence[Example]:
        """The examples with the times of their rows. Raises ValueError where these are no times."""
        if self.time is None:
            return examples
        times = times_of([row[self.time] for row in rows], f"task {self.name!r}: {where}, column {self.time!r}")
        timed = []
        for example, time in zip(examples, times, strict=True):
            timed.append(replace(example, time=time))
        return timed

    def task(
        self,
        labels: tuple[str, ...],
        source: str,
        load: Callable[[RawSplit], Sequence[Example]],
        limits: Limits,
        dataset: str,
    ) -> Task:
        """The task, which `load` reads."""
        template = BENCHMARK
        if self.prompt is not None:
            template = find_prompt(self.prompt)
        return Task(
            name=self.name,
            category=self.category,
            instruction=self.instruction,
            labels=labels,
            source=source,
            load=load,
            limits=limits,
            dataset=dataset,
            template=template,
            scorer=self.scorer or DEFAULT_SCORER,
        )


def _filled(template: str, row: Row) -> str:
    pieces = []
    # not by str.format, for which a dot in a column's name is an attribute
    for literal, column, _, _ in string.Formatter().parse(template):
        pieces.append(literal)
        if column:
            pieces.append(_as_text(row[column]))
    return "".join(pieces)


def _columns_in(template: str) -> tuple[str, ...]:
    """The columns that stand in braces, each once."""
    columns: dict[str, None] = {}
    try:
        for _, column, format_spec, conversion in string.Formatter().parse(template):
            if format_spec or conversion:
                raise ValueError(f"column {column!r} is written with a format; write {{{column}}}")
            if column:
                columns[column] = None
    except ValueError as error:
        raise ValueError(f"{error}; a brace of the text itself is written twice") from None
    return tuple(columns)


def _as_text(value: object) -> str:
    # a cell that holds nothing
    if value is None:
        return ""
    return str(value)
