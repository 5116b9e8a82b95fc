"""Which names mean one data set, and which data sets come from one origin."""

from __future__ import annotations

from streams.sources.folder import canonical

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
