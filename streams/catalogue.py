"""The streams that go by a name, and how a stream is put together from a name, a folder or hub data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streams.base import Limits, Stream
from streams.embedded import embedded
from streams.folder import canonical, find_tasks, folder_task
from streams.hub import HubTask, hub_task


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
DESCRIPTIONS: dict[str, str] = {
    "embedded": "five generated text-to-text tasks, no download",
    **{name: f"{len(tasks)} tasks of the public benchmark, from a folder" for name, tasks in ORDERS.items()},
}


def named_stream(name: str, limits: Limits = Limits(), folder: Path | None = None) -> Stream:
    """A stream of the catalogue. The orders read their tasks from `folder`. Raises ValueError for an unknown name."""
    if name == "embedded":
        return embedded(limits)
    if name in ORDERS:
        if folder is None:
            raise ValueError(f"stream {name!r} reads a local folder: set `folder`, or CL_BENCHMARK_DIR")
        return folder_stream(name, folder, ORDERS[name], limits)
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
