"""The streams that go by a name, and which source reads an entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams import (
    BENCHMARK_SPLIT,
    DESCRIPTIONS,
    ORDERS,
    EmbeddedSource,
    FolderSource,
    HubSource,
    HubTask,
    Limits,
    Source,
    named_stream,
    resolve_source,
)


def test_the_benchmark_split_reads_from_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CL_BENCHMARK_DIR", raising=False)
    with pytest.raises(ValueError, match="'benchmark-tuning' reads a local folder"):
        named_stream("benchmark-tuning")


# As published: order 1-3 and order 4-6 of arXiv 2310.14152, table 8, and the released scripts of arXiv 2406.17245
PUBLISHED_ORDERS = """
order1: dbpedia amazon yahoo agnews
order2: dbpedia amazon agnews yahoo
order3: yahoo amazon agnews dbpedia
order4: mnli cb wic copa qqp boolqa rte imdb yelp amazon sst-2 dbpedia agnews multirc yahoo
order5: multirc boolqa wic mnli cb copa qqp rte imdb sst-2 dbpedia agnews yelp amazon yahoo
order6: yelp amazon mnli cb copa qqp rte imdb sst-2 dbpedia agnews yahoo multirc boolqa wic
"""


def test_the_orders_are_the_published_ones() -> None:
    published = {}
    for line in PUBLISHED_ORDERS.strip().splitlines():
        name, _, tasks = line.partition(": ")
        published[name] = tuple(tasks.replace("sst-2", "sst2").split())
    assert published == ORDERS
    for name, tasks in published.items():
        # what an experiment of that name trains on, not only what the table says
        assert read_entry(name) == ("folder", FolderSource(tasks=tasks))


def test_the_real_benchmark_split(benchmark_folder: Path) -> None:
    streams = [named_stream(name, Limits(max_train=50), benchmark_folder) for name in BENCHMARK_SPLIT]
    assert [[t.dataset for t in s.tasks] for s in streams] == [
        ["rte", "wic", "amazon", "yelp", "boolqa", "agnews"],
        ["mnli", "qqp", "imdb", "sst2", "multirc", "dbpedia"],
    ]
    assert [[t.category for t in s.tasks] for s in streams] == [
        ["NLI", "WiC", "SC", "SC", "BoolQA", "TC"],
        ["NLI", "QQP", "SC", "SC", "MultiRC", "TC"],
    ]
    assert all(len(t.read("train")) == 50 for s in streams for t in s.tasks)


def test_the_real_benchmark(benchmark_folder: Path) -> None:
    sizes = {}
    for order, names in ORDERS.items():
        stream = named_stream(order, folder=benchmark_folder)
        assert len(stream.tasks) == len(names)
        for task in stream.tasks:
            sizes[task.name] = len(task.read("test")), task.dropped_rows("test"), task.dropped_rows("train")
    assert len(sizes) == 15
    assert sizes["MNLI"] == (7600 - 131, 131, 0)
    assert {left for name, (_, left, _) in sizes.items() if name != "MNLI"} == {0}
    assert sizes["dbpedia"][0] == 1901


def read_entry(name: str, **entry: Any) -> tuple[str, Source]:
    source, kind, settings = resolve_source(name, entry)
    return source, kind.model_validate(settings)


def test_a_name_of_the_catalogue_stands_for_a_source_and_its_settings() -> None:
    assert read_entry("embedded-tuning") == ("embedded", EmbeddedSource(words="embedded-tuning"))
    assert read_entry("order1", folder="/x", source=None) == (
        "folder",
        FolderSource(folder="/x", tasks=ORDERS["order1"]),
    )
    _, source = read_entry("benchmark-tuning")
    assert isinstance(source, FolderSource)
    assert source.skip_texts == ("text really good",)
    for name in DESCRIPTIONS:
        source_name, source = read_entry(name)
        assert read_entry(name, source=source_name) == read_entry(name, source=source_name, **source.model_dump())


def test_tasks_of_its_own_take_the_place_of_the_catalogues() -> None:
    assert read_entry("order1", tasks=["a", "b"]) == ("folder", FolderSource(tasks=("a", "b")))
    hub = {"name": "a", "hub": "b/c", "revision": "d"}
    assert read_entry("order1", tasks=[hub]) == ("hub", HubSource(tasks=(HubTask(**hub),)))


def test_an_explicit_source_is_taken() -> None:
    assert read_entry("quick", source="embedded", words="embedded") == ("embedded", EmbeddedSource(words="embedded"))
    assert read_entry("embedded", source="folder", tasks=["a"]) == ("folder", FolderSource(tasks=("a",)))


def test_an_entry_that_no_source_recognises_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"unknown stream 'embeded'. Did you mean 'embedded'\?.*needs `tasks` or a `source`"
    ):
        resolve_source("embeded", {})
