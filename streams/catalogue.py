"""The streams that go by a name, and how a stream is put together from a name, a folder or hub data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from streams.base import Limits, Stream
from streams.sources.embedded import GENERATED, embedded
from streams.sources.folder import canonical, find_tasks, folder_task
from streams.sources.hub import HubTask, hub_task


def _names(line: str) -> tuple[str, ...]:
    return tuple(line.split())


# The published task orders of the benchmark (O-LoRA, arXiv 2310.14152; MIGU, arXiv 2406.17245)
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
SKIPPED: dict[str, frozenset[str]] = {"benchmark-tuning": frozenset({"text really good"})}
FOLDER_STREAMS = {**ORDERS, **BENCHMARK_SPLIT}
DESCRIPTIONS: dict[str, str] = {
    "embedded": "five generated text-to-text tasks, no download",
    "embedded-tuning": "five others of the same shape, to tune on: no word in common with embedded",
    **{name: f"{len(tasks)} tasks of the public benchmark, from a folder" for name, tasks in ORDERS.items()},
    "benchmark-tuning": "6 tasks of the public benchmark, from a folder: to tune on",
    "benchmark-evaluation": "6 tasks of the same profiles from other data: to evaluate on",
}


def named_stream(name: str, limits: Limits = Limits(), folder: Path | None = None) -> Stream:
    """A stream of the catalogue; `FOLDER_STREAMS` are read from `folder`. Raises ValueError for an unknown name."""
    if name in GENERATED:
        return embedded(name, limits)
    if name in FOLDER_STREAMS:
        if folder is None:
            raise ValueError(f"stream {name!r} reads a local folder: set `folder`, or CL_BENCHMARK_DIR")
        limits = replace(limits, skip_texts=limits.skip_texts | SKIPPED.get(name, frozenset()))
        return folder_stream(name, folder, FOLDER_STREAMS[name], limits)
    raise ValueError(f"unknown stream {name!r}: one of {', '.join(DESCRIPTIONS)}")


def folder_stream(name: str, folder: Path, tasks: Sequence[str], limits: Limits = Limits()) -> Stream:
    """The named tasks of a folder, in the given order."""
    found = find_tasks(folder)
    for task in tasks:
        if canonical(task) not in found:
            raise ValueError(f"folder {str(folder)!r} has no task {task!r}: it has {', '.join(sorted(found))}")
    return Stream(name, tuple(folder_task(found[canonical(task)], limits) for task in tasks))


def hub_stream(name: str, tasks: Sequence[HubTask], limits: Limits = Limits()) -> Stream:
    """Tasks from the hub, in the given order."""
    return Stream(name, tuple(hub_task(task, limits) for task in tasks))
