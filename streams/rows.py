"""Which rows of a data set a task uses, and what is wrong with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streams.splits import Example, Limits


@dataclass(frozen=True)
class UsableRows:
    """The rows of a raw split that are used, and those dropped because their label is not in the label set."""

    examples: list[Example]
    dropped_labels: Counter[str]
    first_dropped: Example | None

    @property
    def num_dropped(self) -> int:
        """How many rows were dropped."""
        return self.dropped_labels.total()


def usable_rows(
    rows: Sequence[Example], task: str, labels: tuple[str, ...], other_labels: frozenset[str], limits: Limits
) -> UsableRows:
    """The rows of a raw split of a task that are used: those of its labels, and all where it has none."""
    examples: list[Example] = []
    dropped_labels: Counter[str] = Counter()
    first_dropped = None
    # numbered before anything is left out: a message about row 12 must point at row 12 of the file
    for number, row in enumerate(rows, start=1):
        if row.label in other_labels or not limits.keeps(row.text):
            continue
        numbered = Example(row.text, row.label, number, row.time)
        _check_characters(task, numbered)
        if labels and row.label not in labels:
            dropped_labels[row.label] += 1
            first_dropped = first_dropped or numbered
            continue
        examples.append(numbered)
    return UsableRows(examples, dropped_labels, first_dropped)


def _check_characters(task: str, example: Example) -> None:
    """Raises ValueError for a row with half of a character, which JSON can write (`\\ud83d`) and no tokenizer can read."""
    for text in (example.text, example.label):
        # most texts need no look at their characters
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = ascii(text[max(0, error.start - 20) : error.end])
            raise ValueError(
                f"task {task!r}: row {example.row} holds half of a character (a lone surrogate), at {shown}"
            ) from None
