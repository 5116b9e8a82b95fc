"""Folders in the benchmark's layout, and hub data from local files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams import BENCHMARK_SPLIT, ORDERS, HubTask, Limits, folder_stream, hub_stream, named_stream


def write_task(folder: Path, name: str = "SC/mini", **files: Any) -> Path:
    """A small task in the benchmark's layout; a str is written as it is."""
    rows = [{"label": "Good" if i % 2 else "Bad", "sentence": f"row {i}"} for i in range(10)]
    content = {"train": rows, "test": rows[:4], "labels": ["Good", "Bad"], **files}
    path = folder / name
    path.mkdir(parents=True)
    for key, value in content.items():
        (path / f"{key}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read(folder: Path) -> None:
    stream = folder_stream("own", folder, ["mini"])
    for split in ("train", "test"):
        stream.tasks[0].read(split)


def test_a_folder_task_reads(tmp_path: Path) -> None:
    write_task(tmp_path)
    (task,) = folder_stream("own", tmp_path, ["MINI"]).tasks
    assert (task.name, task.category, task.labels) == ("mini", "SC", ("Good", "Bad"))
    assert len(task.read("train")) + len(task.read("dev")) == 10
    assert task.instruction.startswith("What is the sentiment of the following paragraph? Choose one")
    write_task(tmp_path, "SC/My-Set 2")
    assert folder_stream("own", tmp_path, ["myset2"]).tasks[0].dataset == "myset2"
    assert all(e.text == f"row {e.row - 1}" for e in (*task.read("train"), *task.read("test")))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": '[\n{"label": "Good",\n oops'}, r"train.json, line 3: malformed JSON"),
        ({"train": []}, r"train.json: the train split is empty"),
        ({"test": []}, r"test.json: the test split is empty"),
        ({"labels": []}, r"labels.json: the label set is empty"),
        ({"labels": {"a": 1}}, r"labels.json: expected a list of label texts"),
        ({"train": [{"label": "Good"}]}, r"train.json: row 1 is not"),
        ({"train": {"label": "Good"}}, r"train.json: expected a list of rows, found dict"),
    ],
)
def test_what_is_wrong_in_a_folder_is_said_with_its_file(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_task(tmp_path, **files)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_missing_folders_and_tasks_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        folder_stream("own", tmp_path / "none", ["mini"])
    with pytest.raises(ValueError, match="holds no task"):
        folder_stream("own", tmp_path, ["mini"])
    write_task(tmp_path)
    with pytest.raises(ValueError, match="has no task 'maxi': it has mini"):
        folder_stream("own", tmp_path, ["maxi"])
    with pytest.raises(ValueError, match="reads a local folder"):
        named_stream("order1")


def test_hub_data_reads_from_local_files(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 3)):
        lines = [json.dumps({"title": f"T{i}", "text": f"{split} {i}", "label": i % 2}) for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    spec = HubTask("pairs", str(tmp_path), text=("title", "text"), labels=("zero", "one"), instruction="Which? ")
    (task,) = hub_stream("own", [spec]).tasks
    assert {e.text for e in task.read("test")} == {"T0\ntest 0", "T1\ntest 1", "T2\ntest 2"}
    assert {e.label for e in task.read("train")} == {"zero", "one"}
    assert all(e.text.endswith(f"test {e.row - 1}") for e in task.read("test"))
    wrong = HubTask("pairs", str(tmp_path), text="body", labels=("zero", "one"))
    with pytest.raises(ValueError, match="has no column 'body'"):
        hub_stream("own", [wrong]).tasks[0].read("train")


def test_hub_data_must_be_pinned() -> None:
    with pytest.raises(ValueError, match="needs a pinned `revision`"):
        HubTask("news", "some/dataset")


def test_hub_data_has_one_identity_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "Yelp-Full").mkdir()
    specs = [
        HubTask("a", "Some-Org/News", revision="0" * 40, labels=("x", "y")),
        HubTask("b", "nyu-mll/GLUE", revision="0" * 40, config="MNLI", labels=("x", "y")),
        HubTask("c", str(tmp_path / "Yelp-Full"), labels=("x", "y")),
    ]
    assert [t.dataset for t in hub_stream("own", specs).tasks] == ["some-org/news", "nyu-mll/glue/mnli", "yelpfull"]


def test_the_benchmark_split_reads_from_a_folder() -> None:
    with pytest.raises(ValueError, match="'benchmark-tuning' reads a local folder"):
        named_stream("benchmark-tuning")


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
