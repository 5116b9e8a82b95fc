"""The proof that what is tuned on is not what is evaluated, made before anything is trained.

Four levels of distance between tuning streams and evaluation streams, from the strictest to none at all. A proof reads
train and dev of the tuning streams, never their test split, and all splits of the evaluation streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from streams.base import SPLITS, Split, Stream, Task, bare_text, normalise_answer
from streams.shingles import ShingleIndex
from streams.sources.folder import canonical

Level = Literal["tasks", "labels", "orders", "none"]
LEVELS: tuple[Level, ...] = get_args(Level)
STATEMENTS: dict[Level, str] = {
    "tasks": "Tuned on other data sets than those evaluated: no data set and no text is on both sides.",
    "labels": "Tuned on other labels than those evaluated: no label of a common data set and no text is on both sides.",
    "orders": "Tuned on other orders of the tasks and other rows: no text is on both sides, but data sets may be.",
    "none": "Tuned without regard to what is evaluated: the usual practice, which proves nothing.",
}
# Data sets whose texts or labels come from one origin, by canonical name. Few, and certain:
RELATED: tuple[frozenset[str], ...] = (
    # customers' reviews with one to five stars; yelp and amazon in the benchmark have the same five labels
    frozenset({"yelp", "amazon", "yelpreviewfull", "yelppolarity", "amazonpolarity", "amazonreviewsmulti"}),
    # film reviews; SST labels the sentences of the Rotten Tomatoes set, sst2 and sst5 are two labellings of it
    frozenset({"imdb", "sst", "sst2", "sst5", "rottentomatoes"}),
    # MNLI repeats SNLI's way of collecting with its three labels; XNLI translates it
    frozenset({"mnli", "multinli", "snli", "xnli"}),
    # two names of the Quora question pairs
    frozenset({"qqp", "quora"}),
    # two names of one set of yes/no questions
    frozenset({"boolq", "boolqa"}),
    # the benchmark's set and its name on the hub
    frozenset({"dbpedia", "dbpedia14"}),
    frozenset({"yahoo", "yahooanswerstopics"}),
)
GENERIC = {"default", "plaintext", "main", "all", "en"}  # configurations of hub data sets that name nothing
NEAR = 0.5
SHOWN = 3
TUNING_SPLITS: tuple[Split, ...] = ("train", "dev")

Streams = Sequence[Stream]


class HoldoutViolation(ValueError):
    """Tuning and evaluation are not as far apart as the level demands."""


@dataclass(frozen=True)
class Proof:
    """What was compared and found.

    `*_examples` count distinct texts. `near_duplicates` are evaluation texts of which a tuning text has half of the
    five-word runs or more (Jaccard similarity); `worst` shows the closest pairs. `allowed_related_pairs` are the named pairs
    of data sets (tuning, evaluation) that do lie on two sides.
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
        return {
            **asdict(self),
            "worst": list(self.worst),
            "allowed_related_pairs": [list(pair) for pair in self.allowed_related_pairs],
        }


@dataclass(frozen=True)
class _Row:
    """A text and the first place where it lies."""

    stream: str
    task: str
    split: Split
    row: int
    text: str

    def __str__(self) -> str:
        return f"task {self.task!r} {self.split} row {self.row}"


def prove(
    level: Level, tuning: Streams, evaluation: Streams, allowed_related_pairs: Sequence[Sequence[str]] = ()
) -> Proof:
    """Compares the two sides by the level's rules. Raises HoldoutViolation where they are too close.

    `allowed_related_pairs` names pairs of related data sets that may lie on two sides all the same.
    """
    if level not in LEVELS:
        raise HoldoutViolation(f"search: unknown holdout {level!r}: one of {', '.join(LEVELS)}")
    for side, streams in (("tuning", tuning), ("evaluation", evaluation)):
        if not streams:
            raise HoldoutViolation(f"search: there is no {side} stream")
    named = _named_pairs(allowed_related_pairs, tuning, evaluation)
    _RULES[level](tuning, evaluation, named)
    ours, theirs = _rows(tuning, TUNING_SPLITS), _rows(evaluation, SPLITS)
    near: list[str] = []
    if level != "none":
        _refuse_common_texts(level, ours, theirs)
        near = _near_duplicates(list(ours.values()), list(theirs.values()))
    names = " and ".join(f"{one} (tuning), {other} (evaluation)" for one, other in named)
    return Proof(
        level=level,
        statement=STATEMENTS[level] + (f" Related data on two sides, as stated: {names}." if named else ""),
        tuning_examples=len(ours),
        evaluation_examples=len(theirs),
        near_duplicates=len(near),
        near_duplicate_rate=len(near) / len(theirs),
        worst=tuple(near[:SHOWN]),
        allowed_related_pairs=named,
    )


def _rows(streams: Streams, splits: Sequence[Split]) -> dict[bytes, _Row]:
    """Each distinct text of the splits, by the SHA-256 of its bare form."""
    rows: dict[bytes, _Row] = {}
    for stream, task in _tasks(streams):
        for split in splits if task.has_dev else [s for s in splits if s != "dev"]:
            for example in task.read(split):
                text = bare_text(example.text)
                place = _Row(stream.name, task.name, split, example.row, text)
                rows.setdefault(hashlib.sha256(text.encode()).digest(), place)
    return rows


def _tasks(streams: Streams) -> Iterator[tuple[Stream, Task]]:
    return ((stream, task) for stream in streams for task in stream.tasks)


def _refuse_common_texts(level: Level, ours: dict[bytes, _Row], theirs: dict[bytes, _Row]) -> None:
    common = [digest for digest in ours if digest in theirs]
    if not common:
        return
    (a, b), more = (side[common[0]] for side in (ours, theirs)), len(common) - 1
    raise HoldoutViolation(
        f"search: tuning stream {a.stream!r}, task {a.task!r}, {a.split} row {a.row} and evaluation stream {b.stream!r}, "
        f"task {b.task!r}, {b.split} row {b.row} hold the same text; holdout {level!r} forbids it"
        + (f" ({more} more such text{'s' if more > 1 else ''})" if more else "")
    )


def _near_duplicates(ours: Sequence[_Row], theirs: Sequence[_Row]) -> list[str]:
    """Evaluation texts with a tuning text that is nearly the same, each with its nearest; the closest pairs first."""
    index = ShingleIndex([row.text for row in ours])
    pairs = [(*index.nearest(row.text), row) for row in theirs]
    pairs = sorted((pair for pair in pairs if pair[0] >= NEAR), key=lambda pair: -pair[0])
    return [f"{ours[number]} ~ {row} ({similarity:.2f})" for similarity, number, row in pairs]


# What data sets are called, and what is known of them


def _names(dataset: str) -> set[str]:
    """What a data set may be called: `nyu-mll/glue/mnli` is also mnli."""
    return {canonical(part) for part in (dataset, *dataset.split("/"))}


def _same(one: str, other: str) -> bool:
    """Whether two names are of one data set; a folder's `rte` is the hub's `nyu-mll/glue/rte`."""
    last, others = (canonical(name.split("/")[-1]) for name in (one, other))
    return one == other or (last == others and last not in GENERIC)


def _related(one: str, other: str) -> bool:
    return any(group & _names(one) and group & _names(other) for group in RELATED)


def _named_pairs(
    allowed_related_pairs: Sequence[Sequence[str]], tuning: Streams, evaluation: Streams
) -> tuple[tuple[str, str], ...]:
    """The pairs of `allowed_related_pairs` that do lie on two sides, as (tuning, evaluation). Raises for a name nobody knows."""
    ours, theirs = (set().union(*(_names(task.dataset) for _, task in _tasks(s))) for s in (tuning, evaluation))
    pairs = []
    for names in allowed_related_pairs:
        if isinstance(names, str) or len(names) != 2:
            raise HoldoutViolation(f"search: allowed_related_pairs {names!r} is not a pair of data sets")
        for name in names:
            if canonical(name) not in ours | theirs | frozenset().union(*RELATED):
                have = ", ".join(sorted({task.dataset for _, task in _tasks((*tuning, *evaluation))}))
                raise HoldoutViolation(
                    f"search: allowed_related_pairs names an unknown data set {name!r}: here are {have}"
                )
        one, other = map(canonical, names)
        pairs += [(a, b) for a, b in ((one, other), (other, one)) if a in ours and b in theirs]
    return tuple(dict.fromkeys(pairs))


# The rules of each level about data sets, labels and orders


def _other_data_sets(tuning: Streams, evaluation: Streams, named: Sequence[tuple[str, str]]) -> None:
    for places, a, b in _pairs(tuning, evaluation):
        if _same(a.dataset, b.dataset):
            raise HoldoutViolation(f"search: {places} read one data set, {a.dataset!r}; holdout 'tasks' forbids it")
        excused = any(one in _names(a.dataset) and other in _names(b.dataset) for one, other in named)
        if _related(a.dataset, b.dataset) and not excused:
            raise HoldoutViolation(
                f"search: {places} read related data sets, {a.dataset!r} and {b.dataset!r}; holdout 'tasks' forbids it "
                "unless `allowed_related_pairs` names the two"
            )


def _other_labels(tuning: Streams, evaluation: Streams, named: Sequence[tuple[str, str]]) -> None:
    for places, a, b in _pairs(tuning, evaluation):
        theirs = {normalise_answer(label) for label in b.labels}
        common = [label for label in a.labels if normalise_answer(label) in theirs]
        if _same(a.dataset, b.dataset) and common:
            raise HoldoutViolation(
                f"search: {places} have the label {common[0]!r} of data set {a.dataset!r}; holdout 'labels' forbids it"
            )


def _other_orders(tuning: Streams, evaluation: Streams, named: Sequence[tuple[str, str]]) -> None:
    for a in tuning:
        for b in evaluation:
            if [task.dataset for task in a.tasks] == [task.dataset for task in b.tasks]:
                raise HoldoutViolation(
                    f"search: tuning stream {a.name!r} and evaluation stream {b.name!r} have the same order of data sets; "
                    "holdout 'orders' forbids it"
                )


def _anything(tuning: Streams, evaluation: Streams, named: Sequence[tuple[str, str]]) -> None:
    pass


def _pairs(tuning: Streams, evaluation: Streams) -> Iterator[tuple[str, Task, Task]]:
    """Every task of one side with every task of the other, and how to name the two."""
    for x, a in _tasks(tuning):
        for y, b in _tasks(evaluation):
            places = f"tuning stream {x.name!r}, task {a.name!r} and evaluation stream {y.name!r}, task {b.name!r}"
            yield places, a, b


_RULES: dict[Level, Callable[[Streams, Streams, Sequence[tuple[str, str]]], None]] = {
    "tasks": _other_data_sets,
    "labels": _other_labels,
    "orders": _other_orders,
    "none": _anything,
}
