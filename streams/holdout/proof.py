"""The proof itself: both sides' texts compared, and what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from streams.holdout.levels import LEVELS, RULES, STATEMENTS, HoldoutViolation, Level, pairs_on_two_sides
from streams.holdout.near_duplicates import ShingleIndex
from streams.splits import SPLITS, Split
from streams.stream import Stream
from streams.text import bare_text

# Jaccard similarity of five-word runs from which two texts count as nearly the same
NEAR = 0.5
SHOWN = 3
# the test split of a tuning stream is sealed: no trial can have seen it
TUNING_SPLITS: tuple[Split, ...] = ("train", "dev")


@dataclass(frozen=True)
class Proof:
    """What was compared and found.

    `*_examples` count distinct texts. `near_duplicates` are evaluation texts of which a tuning text has half of the
    five-word runs or more (Jaccard similarity); `worst` shows the closest pairs. `allowed_related_pairs` are the named
    pairs of data sets (tuning, evaluation) that do lie on two sides.
    """

    level: Level
    statement: str
    tuning_examples: int
    evaluation_examples: int
    near_duplicates: int = 0
    near_duplicate_rate: float = 0.0
    worst: tuple[str, ...] = ()
    allowed_related_pairs: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        values = asdict(self)
        # JSON has no tuples: what is written must equal what is read again
        values["worst"] = list(self.worst)
        values["allowed_related_pairs"] = list(map(list, self.allowed_related_pairs))
        return values


@dataclass(frozen=True)
class _TextRow:
    """A text in its bare form, and the first row that holds it."""

    stream: str
    task: str
    split: Split
    row: int
    text: str

    def __str__(self) -> str:
        return f"task {self.task!r} {self.split} row {self.row}"


def prove(
    level: Level,
    tuning: Sequence[Stream],
    evaluation: Sequence[Stream],
    allowed_related_pairs: Sequence[Sequence[str]] = (),
) -> Proof:
    """Compares the two sides by the level's rules. Raises HoldoutViolation where they are too close.

    `allowed_related_pairs` names pairs of related data sets that may lie on two sides all the same.
    """
    if level not in LEVELS:
        raise HoldoutViolation(f"search: unknown holdout {level!r}: one of {', '.join(LEVELS)}")
    for side, streams in (("tuning", tuning), ("evaluation", evaluation)):
        if not streams:
            raise HoldoutViolation(f"search: there is no {side} stream")
    allowed = pairs_on_two_sides(allowed_related_pairs, tuning, evaluation)
    # names and labels first: a user who chose the wrong data set should not wait for its texts to be compared
    RULES[level](tuning, evaluation, allowed)
    ours = _distinct_texts(tuning, TUNING_SPLITS)
    theirs = _distinct_texts(evaluation, SPLITS)
    near: list[str] = []
    if level != "none":
        _refuse_common_texts(level, ours, theirs)
        near = _near_duplicates(list(ours.values()), list(theirs.values()))
    return Proof(
        level=level,
        statement=_statement(level, allowed),
        tuning_examples=len(ours),
        evaluation_examples=len(theirs),
        near_duplicates=len(near),
        near_duplicate_rate=len(near) / len(theirs),
        worst=tuple(near[:SHOWN]),
        allowed_related_pairs=allowed,
    )


def _statement(level: Level, allowed: Sequence[tuple[str, str]]) -> str:
    statement = STATEMENTS[level]
    if allowed:
        pairs = " and ".join(f"{one} (tuning), {other} (evaluation)" for one, other in allowed)
        statement += f" Related data on two sides, as stated: {pairs}."
    return statement


def _distinct_texts(streams: Sequence[Stream], splits: Sequence[Split]) -> dict[bytes, _TextRow]:
    """Each distinct text of the splits, by the SHA-256 of its bare form."""
    texts: dict[bytes, _TextRow] = {}
    for stream in streams:
        for task in stream.tasks:
            for split in splits:
                # reading an empty split is an error, and a dev split may well be empty
                if split == "dev" and not task.has_dev:
                    continue
                for example in task.read(split):
                    text = bare_text(example.text)
                    row = _TextRow(stream.name, task.name, split, example.row, text)
                    texts.setdefault(hashlib.sha256(text.encode()).digest(), row)
    return texts


def _refuse_common_texts(level: Level, ours: dict[bytes, _TextRow], theirs: dict[bytes, _TextRow]) -> None:
    # in the order of our rows, so that the first that is named is the first in the file
    common = list(filter(theirs.__contains__, ours))
    if not common:
        return
    one = ours[common[0]]
    other = theirs[common[0]]
    message = (
        f"search: tuning stream {one.stream!r}, task {one.task!r}, {one.split} row {one.row} and "
        f"evaluation stream {other.stream!r}, task {other.task!r}, {other.split} row {other.row} "
        f"hold the same text; holdout {level!r} forbids it"
    )
    num_more = len(common) - 1
    if num_more == 1:
        message += " (1 more such text)"
    elif num_more > 1:
        message += f" ({num_more} more such texts)"
    raise HoldoutViolation(message)


def _near_duplicates(ours: Sequence[_TextRow], theirs: Sequence[_TextRow]) -> list[str]:
    """Evaluation texts with a tuning text that is nearly the same, each with its nearest; the closest pairs first."""
    index = ShingleIndex([row.text for row in ours])
    similarity_of: dict[str, float] = {}
    for row in theirs:
        similarity, number = index.nearest(row.text)
        if similarity >= NEAR:
            # no two lines are alike: each names another row of the evaluation
            similarity_of[f"{ours[number]} ~ {row} ({similarity:.2f})"] = similarity
    # the sort is stable, also in reverse, so equal ones stay in the order of the streams
    return sorted(similarity_of, key=similarity_of.__getitem__, reverse=True)
