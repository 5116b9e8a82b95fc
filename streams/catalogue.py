"""The streams that go by a name, and which source reads a stream's entry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.manifest import published_sizes
from streams.names import unknown_name
from streams.sources import SOURCES, find_source
from streams.sources.embedded import GENERATED
from streams.sources.embedded_corpora import GENERATED_CORPORA
from streams.sources.source import Source
from streams.sources.trace import TRACE_ROWS, TRACE_SCORERS
from streams.splits import Limits
from streams.stream import Stream


def _names(line: str) -> tuple[str, ...]:
    return tuple(line.split())


# The published task orders of the benchmark (O-LoRA, arXiv 2310.14152; MIGU, arXiv 2406.17245). Of the public MNLI, 131
# of 7,600 test rows have a label outside its label set (`-`, no majority among the annotators): they are left out here,
# as all such rows. The published numbers count them, so MNLI cannot be above 98.3 % there.
ORDERS: dict[str, tuple[str, ...]] = {
    "order1": ("dbpedia", "amazon", "yahoo", "agnews"),
    "order2": ("dbpedia", "amazon", "agnews", "yahoo"),
    "order3": ("yahoo", "amazon", "agnews", "dbpedia"),
    "order4": _names("mnli cb wic copa qqp boolqa rte imdb yelp amazon sst2 dbpedia agnews multirc yahoo"),
    "order5": _names("multirc boolqa wic mnli cb copa qqp rte imdb sst2 dbpedia agnews yelp amazon yahoo"),
    "order6": _names("yelp amazon mnli cb copa qqp rte imdb sst2 dbpedia agnews yahoo multirc boolqa wic"),
}
# The same tasks split for tuning and evaluation: alike position by position (inference, pairs of sentences, sentiment,
# sentiment, question answering, topic), with related data on one side (yelp and amazon; IMDB and SST-2). Left out: CB
# and COPA, which have too few rows (250 and 400), and yahoo, a third topic task without a partner.
BENCHMARK_SPLIT: dict[str, tuple[str, ...]] = {
    "benchmark-tuning": _names("rte wic amazon yelp boolqa agnews"),
    "benchmark-evaluation": _names("mnli qqp imdb sst2 multirc dbpedia"),
}
# "Text: Really good" is a review on yelp and a phrase of SST-2: no text may be on both sides, so tuning goes without it
SKIPPED: dict[str, tuple[str, ...]] = {"benchmark-tuning": ("text really good",)}
FOLDER_STREAMS = {**ORDERS, **BENCHMARK_SPLIT}
# all that a folder is given for
READ_FROM_FOLDER = (*FOLDER_STREAMS, "trace")
DESCRIPTIONS: dict[str, str] = {
    "embedded": "five generated text-to-text tasks, no download",
    "embedded-tuning": "five others of the same shape, to tune on: no word in common with embedded",
    "embedded-long": "15 generated tasks of made-up words, none in common with each other or with the two above",
    "embedded-cpt": "four generated corpora in languages of their own, for pre-training: no download",
    "embedded-cpt-tuning": "four others of the same shape: no word in common with any of the above",
    **{name: f"{len(tasks)} tasks of the public benchmark, from a folder" for name, tasks in ORDERS.items()},
    "benchmark-tuning": "6 tasks of the public benchmark, from a folder: to tune on",
    "benchmark-evaluation": "6 tasks of the same profiles from other data: to evaluate on",
    "trace": "the 8 tasks of TRACE (arXiv 2310.06762), from a folder: answers of several kinds, in three languages and code",
}


def stream_sizes(name: str) -> dict[str, tuple[int | None, int | None]]:
    """By task, in order, the (train, test) rows of a stream of the catalogue, as published; None where that is not known.

    Reads no folder: what lies in one may be another sample (see `streams.manifest`).
    """
    if name == "trace":
        return dict.fromkeys(TRACE_SCORERS, TRACE_ROWS)
    if name in FOLDER_STREAMS:
        return {task: published_sizes(task) for task in FOLDER_STREAMS[name]}
    sizes: dict[str, tuple[int | None, int | None]] = {}
    for task in named_stream(name, Limits(dev_fraction=0)).tasks:
        sizes[task.name] = (task.size("train"), task.size("test"))
    return sizes


def catalogue_entry(name: str) -> dict[str, Any]:
    """What the catalogue's name stands for: its source's name (as `source`) and that source's settings."""
    if name in GENERATED:
        return {"source": "embedded", "words": name}
    if name in GENERATED_CORPORA:
        return {"source": "embedded-corpora", "languages": name}
    if name == "trace":
        return {"source": "trace"}
    return {"source": "folder", "tasks": FOLDER_STREAMS[name], "skip_texts": SKIPPED.get(name, ())}


def resolve_source(name: str, entry: Mapping[str, Any]) -> tuple[str, type[Source], dict[str, Any]]:
    """(name of the source, its class, its settings still unchecked) of a stream's entry.

    The source is the one that the entry names; else, without tasks of its own, that of the catalogue's stream of this
    name; else the first that recognises the entry. Raises ValueError where there is none.
    """
    # null is how a YAML file, and an experiment that was saved, say "not given"
    settings = {}
    for key, value in entry.items():
        if value is not None:
            settings[key] = value
    source = settings.pop("source", None)
    if "tasks" in settings and name in (*GENERATED, *GENERATED_CORPORA) and source is None:
        # taken for tasks of a folder, it would be other data under the name of the generated one
        raise ValueError(
            f"stream {name!r} is generated, all of its tasks at once: `tasks` does not go with it. `first` or `only` take "
            "a part; tasks of your own need another name, or a `source`"
        )
    # tasks of its own make a stream of its own, even under a name of the catalogue
    if "tasks" not in settings and name in DESCRIPTIONS:
        defaults = catalogue_entry(name)
        catalogue_source = defaults.pop("source")
        if source in (None, catalogue_source):
            source = catalogue_source
            settings = {**defaults, **settings}
    if source is not None:
        return str(source), find_source(str(source)), settings
    # only those of this package: an installed one is asked for by name, so that installing it changes no entry's meaning
    for candidate, kind in SOURCES.items():
        if kind.recognises(settings):
            return candidate, kind, settings
    hint = unknown_name("stream", name, DESCRIPTIONS)
    raise ValueError(f"{hint}; a stream of your own needs `tasks` or a `source`")


def named_stream(name: str, limits: Limits = Limits(), folder: Path | None = None) -> Stream:
    """A stream of the catalogue; `READ_FROM_FOLDER` are read from `folder`. Raises ValueError for an unknown name."""
    if name not in DESCRIPTIONS:
        raise ValueError(unknown_name("stream", name, DESCRIPTIONS))
    entry: dict[str, Any] = {}
    if name in READ_FROM_FOLDER and folder is not None:
        entry["folder"] = str(folder)
    _, kind, settings = resolve_source(name, entry)
    return kind.model_validate(settings).stream(name, limits)
