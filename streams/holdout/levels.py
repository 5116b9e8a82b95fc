"""The levels of distance between tuning and evaluation, from the strictest to none, what each forbids, and what a user allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, get_args

from streams.holdout.related import RELATED, is_related, is_same, names_of
from streams.scorer_names import NORMAL_FORMS
from streams.sources.folder import canonical
from streams.stream import Stream
from streams.task import Task

Level = Literal["tasks", "labels", "orders", "none"]
LEVELS: tuple[Level, ...] = get_args(Level)
STATEMENTS: dict[Level, str] = {
    "tasks": "Tuned on other data sets than those evaluated: no data set and no text is on both sides.",
    "labels": "Tuned on other labels than those evaluated: no label of a common data set and no text is on both sides.",
    "orders": "Tuned on other orders of the tasks and other rows: no text is on both sides, but data sets may be.",
    "none": "Tuned without regard to what is evaluated: the usual practice, which proves nothing.",
}

Streams = Sequence[Stream]
Pairs = Sequence[tuple[str, str]]


class HoldoutViolation(ValueError):
    """Tuning and evaluation are not as far apart as the level demands."""


def _other_data_sets(tuning: Streams, evaluation: Streams, allowed: Pairs) -> None:
    for names, ours, theirs in _pairs_of_tasks(tuning, evaluation):
        if is_same(ours.dataset, theirs.dataset):
            raise HoldoutViolation(f"search: {names} read one data set, {ours.dataset!r}; holdout 'tasks' forbids it")
        if is_related(ours.dataset, theirs.dataset) and not _is_allowed(ours, theirs, allowed):
            raise HoldoutViolation(
                f"search: {names} read related data sets, {ours.dataset!r} and {theirs.dataset!r}; "
                "holdout 'tasks' forbids it unless `allowed_related_pairs` names the two"
            )


def _is_allowed(ours: Task, theirs: Task, allowed: Pairs) -> bool:
    our_names = names_of(ours.dataset)
    their_names = names_of(theirs.dataset)
    # the pairs are sorted by side already: a pair that is allowed one way round is not allowed the other
    for one, other in allowed:
        if one in our_names and other in their_names:
            return True
    return False


def _other_labels(tuning: Streams, evaluation: Streams, allowed: Pairs) -> None:
    for names, ours, theirs in _pairs_of_tasks(tuning, evaluation):
        if not is_same(ours.dataset, theirs.dataset):
            continue
        # open answers may hold any label: that none is common cannot be shown
        if not ours.labels or not theirs.labels:
            raise HoldoutViolation(
                f"search: {names} read one data set, {ours.dataset!r}, and not both have a label set; "
                "holdout 'labels' forbids it"
            )
        # what a scorer takes for one label is one label here
        normal_form = NORMAL_FORMS[theirs.scorer]
        their_labels = set(map(normal_form, theirs.labels))
        for label in ours.labels:
            if normal_form(label) in their_labels:
                raise HoldoutViolation(
                    f"search: {names} have the label {label!r} of data set {ours.dataset!r}; "
                    "holdout 'labels' forbids it"
                )


def _other_orders(tuning: Streams, evaluation: Streams, allowed: Pairs) -> None:
    for ours in tuning:
        for theirs in evaluation:
            if _order(ours) == _order(theirs):
                raise HoldoutViolation(
                    f"search: tuning stream {ours.name!r} and evaluation stream {theirs.name!r} have the same order of "
                    "data sets; holdout 'orders' forbids it"
                )


# The names of tasks may differ from side to side; the data sets behind them are what an order is made of.
def _order(stream: Stream) -> list[str]:
    return [task.dataset for task in stream.tasks]


def _anything(tuning: Streams, evaluation: Streams, allowed: Pairs) -> None:
    pass


def _pairs_of_tasks(tuning: Streams, evaluation: Streams) -> Iterator[tuple[str, Task, Task]]:
    """Every task of one side with every task of the other, and how to name the two."""
    for our_stream in tuning:
        for their_stream in evaluation:
            for ours in _with_guests(our_stream):
                for theirs in _with_guests(their_stream):
                    names = (
                        f"tuning stream {our_stream.name!r}, task {ours.name!r} and "
                        f"evaluation stream {their_stream.name!r}, task {theirs.name!r}"
                    )
                    yield names, ours, theirs


def _with_guests(stream: Stream) -> list[Task]:
    """The tasks of a stream, and those whose examples are mixed into them."""
    tasks = dict.fromkeys(stream.tasks)
    for task in stream.tasks:
        tasks.update(dict.fromkeys(task.guest_tasks))
    return list(tasks)


RULES: dict[Level, Callable[[Streams, Streams, Pairs], None]] = {
    "tasks": _other_data_sets,
    "labels": _other_labels,
    "orders": _other_orders,
    "none": _anything,
}


def _all_names(datasets: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for dataset in datasets:
        names |= names_of(dataset)
    return names


def datasets_of(streams: Sequence[Stream]) -> list[str]:
    """The data sets of all tasks of the streams, sorted."""
    datasets: set[str] = set()
    for stream in streams:
        for task in _with_guests(stream):
            datasets.add(task.dataset)
    return sorted(datasets)


def pairs_on_two_sides(
    allowed_related_pairs: Sequence[Sequence[str]], tuning: Sequence[Stream], evaluation: Sequence[Stream]
) -> tuple[tuple[str, str], ...]:
    """The allowed pairs that do lie on two sides, as (tuning, evaluation). Raises HoldoutViolation for a name nobody knows."""
    tuning_names = _all_names(datasets_of(tuning))
    evaluation_names = _all_names(datasets_of(evaluation))
    known = tuning_names.union(evaluation_names, *RELATED)
    found: dict[tuple[str, str], None] = {}
    for pair in allowed_related_pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise HoldoutViolation(f"search: allowed_related_pairs {pair!r} is not a pair of data sets")
        for name in pair:
            if canonical(name) not in known:
                have = ", ".join(datasets_of([*tuning, *evaluation]))
                raise HoldoutViolation(
                    f"search: allowed_related_pairs names an unknown data set {name!r}: here are {have}"
                )
        one = canonical(pair[0])
        other = canonical(pair[1])
        # the user need not know which of the two is tuned on
        for ours, theirs in ((one, other), (other, one)):
            if ours in tuning_names and theirs in evaluation_names:
                found[ours, theirs] = None
    return tuple(found)
