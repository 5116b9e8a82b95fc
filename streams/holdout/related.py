"""Which names mean one data set, and which data sets come from one origin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams.holdout.violation import HoldoutViolation
from streams.sources.folder import canonical
from streams.stream import Stream

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
# configurations of hub data sets that name nothing
GENERIC = {"default", "plaintext", "main", "all", "en"}


def names_of(dataset: str) -> set[str]:
    """What a data set may be called: `nyu-mll/glue/mnli` is also mnli."""
    return {canonical(dataset), *map(canonical, dataset.split("/"))}


def is_same(one: str, other: str) -> bool:
    """Whether two names are of one data set; a folder's `rte` is the hub's `nyu-mll/glue/rte`."""
    if one == other:
        return True
    last = canonical(one.split("/")[-1])
    return last == canonical(other.split("/")[-1]) and last not in GENERIC


def is_related(one: str, other: str) -> bool:
    """Whether the texts or labels of two data sets come from one origin."""
    for group in RELATED:
        if group & names_of(one) and group & names_of(other):
            return True
    return False


def _all_names(datasets: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for dataset in datasets:
        names |= names_of(dataset)
    return names


def datasets_of(streams: Sequence[Stream]) -> list[str]:
    """The data sets of all tasks of the streams, sorted."""
    datasets: set[str] = set()
    for stream in streams:
        for task in stream.tasks:
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
