"""Prompt templates: how instruction, options and text of a task become what a model reads.

A template is data, not code: a list of segments with fields in braces. So it can be written in a YAML file, and it is
part of the data's hash by its content.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from streams.names import unknown_name

FIELDS = ("instruction", "options", "text", "category", "dataset")


@dataclass(frozen=True)
class Prompt:
    """A prompt in three parts, so that a model with little room shortens the middle and keeps the question whole."""

    prefix: str
    text: str
    suffix: str

    def __str__(self) -> str:
        return self.prefix + self.text + self.suffix


@dataclass(frozen=True)
class PromptTemplate:
    """A named sequence of segments with the fields {instruction} {options} {text} {category} {dataset}.

    A segment is left out where one of its fields is empty, unless it holds {text}: a task of open answers has no line
    of options. {text} stands in it exactly once. Raises ValueError for any other field.
    """

    name: str
    segments: tuple[str, ...]

    def __post_init__(self) -> None:
        used: list[str] = []
        for pieces in self._pieces:
            for _, field in pieces:
                if field is not None:
                    used.append(field)
        for field in used:
            if field not in FIELDS:
                raise ValueError(unknown_name("field", field, FIELDS))
        if used.count("text") != 1:
            raise ValueError(f"a template holds {{text}} exactly once, this one {used.count('text')} times")

    @cached_property
    def _pieces(self) -> list[list[tuple[str, str | None]]]:
        """For each segment its (literal text, name of the field that follows it or None)."""
        segments = []
        for segment in self.segments:
            try:
                parsed = list(string.Formatter().parse(segment))
            except ValueError as error:
                raise ValueError(f"{error}; a brace of the text itself is written twice") from None
            pieces: list[tuple[str, str | None]] = []
            for literal, field, format_spec, conversion in parsed:
                if format_spec or conversion:
                    raise ValueError(f"field {field!r} is written with a format; write {{{field}}}")
                pieces.append((literal, field))
            segments.append(pieces)
        return segments

    @staticmethod
    def _is_left_out(pieces: list[tuple[str, str | None]], fields: Mapping[str, str]) -> bool:
        is_any_empty = False
        for _, field in pieces:
            if field == "text":
                return False
            if field is not None and not fields[field]:
                is_any_empty = True
        return is_any_empty

    def render(self, text: str, fields: Mapping[str, str]) -> Prompt:
        """The prompt for one text; `fields` has a value for every field but the text."""
        before: list[str] = []
        after: list[str] = []
        side = before
        for pieces in self._pieces:
            if self._is_left_out(pieces, fields):
                continue
            for literal, field in pieces:
                side.append(literal)
                if field == "text":
                    side = after
                elif field is not None:
                    side.append(fields[field])
        return Prompt("".join(before), text, "".join(after))


# The prompt published with the 15-task benchmark (O-LoRA, arXiv 2310.14152; used by arXiv 2406.17245), to its last
# trailing blank: every stored checkpoint was trained on it. A task without a category has no head.
BENCHMARK = PromptTemplate(
    "benchmark",
    (
        "Task:{category}\nDataset:{dataset}\n",
        "{instruction}",
        "Option: {options} \n",
        "{text}\nAnswer:",
    ),
)
PLAIN = PromptTemplate("plain", ("{text}",))
# Names neither category nor data set: for tasks that are meant to be told apart by their instruction alone. It has no
# words beside those of the published prompt, so that the built-in models' vocabulary covers it.
INSTRUCTION = PromptTemplate("instruction", ("{instruction}\n", "{text}\n", "Option: {options}\n", "Answer:"))

PROMPTS: dict[str, PromptTemplate] = {template.name: template for template in (BENCHMARK, PLAIN, INSTRUCTION)}


def find_prompt(value: str) -> PromptTemplate:
    """The template of that name; or, of a text with braces, the template that it is, a segment a line.

    Raises ValueError for an unknown name, an unknown field, or a template without {text}.
    """
    if value in PROMPTS:
        return PROMPTS[value]
    if "{" in value:
        return PromptTemplate("custom", tuple(value.splitlines(keepends=True)))
    raise ValueError(unknown_name("prompt", value, PROMPTS) + "; or give a template with {text}")
