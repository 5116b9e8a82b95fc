"""Folders in the benchmark's layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams import (
    FolderSource,
    Limits,
    Stream,
    find_prompt,
)


def write_task(folder: Path, name: str = "SC/mini", **files: Any) -> Path:
    """A small task in the benchmark's layout; a str is written as it is."""
    rows = [{"label": "Good" if i % 2 else "Bad", "sentence": f"row {i}"} for i in range(10)]
    content = {"train": rows, "test": rows[:4], "labels": ["Good", "Bad"], **files}
    path = folder / name
    path.mkdir(parents=True)
    for key, value in content.items():
        (path / f"{key}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def open_folder(folder: Path, task: str = "mini") -> Stream:
    return FolderSource(folder=str(folder), tasks=(task,)).stream("own", Limits())


def read(folder: Path) -> None:
    stream = open_folder(folder)
    for split in ("train", "test"):
        stream.tasks[0].read(split)


def test_a_folder_task_reads(tmp_path: Path) -> None:
    write_task(tmp_path)
    (task,) = open_folder(tmp_path, "MINI").tasks
    assert (task.name, task.category, task.labels) == ("mini", "SC", ("Good", "Bad"))
    assert len(task.read("train")) + len(task.read("dev")) == 10
    assert task.instruction.startswith("What is the sentiment of the following paragraph? Choose one")
    write_task(tmp_path, "SC/My-Set 2")
    assert open_folder(tmp_path, "myset2").tasks[0].dataset == "myset2"
    assert all(e.text == f"row {e.row - 1}" for e in (*task.read("train"), *task.read("test")))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": '[\n{"label": "Good",\n oops'}, r"train.json, line 3: malformed JSON"),
        ({"train": []}, r"train.json: the train split is empty"),
        ({"test": []}, r"test.json: the test split is empty"),
        ({"labels": {"a": 1}}, r"labels.json: expected a list of label texts"),
        ({"train": [{"label": "Good"}]}, r"train.json: row 1 is not"),
        ({"train": {"label": "Good"}}, r"train.json: expected a list of rows, found dict"),
    ],
)
def test_what_is_wrong_in_a_folder_is_said_with_its_file(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_task(tmp_path, **files)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


# What a model reads for the text "A text.", by category; the folder's label set is Good and Bad
PUBLISHED_PROMPTS = {
    "NLI": 'Task:NLI\nDataset:mini\nWhat is the logical relationship between the "sentence 1" and the "sentence 2"? '
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "QQP": 'Task:QQP\nDataset:mini\nWhether the "first sentence" and the "second sentence" have the same meaning? '
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "SC": "Task:SC\nDataset:mini\nWhat is the sentiment of the following paragraph? "
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "TC": "Task:TC\nDataset:mini\nWhat is the topic of the following paragraph? "
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "BoolQA": "Task:BoolQA\nDataset:mini\nAccording to the following passage, is the question true or false? "
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "MultiRC": "Task:MultiRC\nDataset:mini\n"
    "According to the following passage and question, is the candidate answer true or false? "
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "WiC": "Task:WiC\nDataset:mini\n"
    "Given a word and two sentences, whether the word is used with the same sense in both sentence? "
    "Choose one from the option.\nOption: Good, Bad \nA text.\nAnswer:",
    "COPA": "Task:COPA\nDataset:mini\nA text.\nAnswer:",
}


@pytest.mark.parametrize("category", PUBLISHED_PROMPTS)
def test_each_category_is_asked_as_published(category: str, tmp_path: Path) -> None:
    write_task(tmp_path, f"{category}/mini")
    (task,) = open_folder(tmp_path).tasks
    assert str(task.prompt("A text.")) == PUBLISHED_PROMPTS[category]


def test_a_row_that_lists_its_options_is_asked_by_no_other_words(tmp_path: Path) -> None:
    write_task(tmp_path, "COPA/COPA", labels=["A", "B"], train=[{"label": "A", "sentence": "Which? A: x B: y"}])
    (task,) = open_folder(tmp_path, "copa").tasks
    assert str(task.prompt("Which? A: x B: y")) == "Task:COPA\nDataset:COPA\nWhich? A: x B: y\nAnswer:"
    assert str(replace(task, template=find_prompt("instruction")).prompt("Which?")) == "Which?\nAnswer:"
    assert task.labels == ("A", "B")
    # what a model reads is in the hash, so that no checkpoint of another prompt is taken for this one's
    listed = replace(task, lists_options=True)
    assert listed.train_hash != task.train_hash


def test_missing_folders_and_tasks_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no task"):
        open_folder(tmp_path)
    write_task(tmp_path)
    monkeypatch.delenv("CL_BENCHMARK_DIR", raising=False)
    with pytest.raises(ValueError, match="has no task 'maxi': it has mini"):
        open_folder(tmp_path, "maxi")
    with pytest.raises(ValueError, match="reads a local folder"):
        FolderSource(tasks=("mini",)).stream("own", Limits())


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, "TC/Q&A")
    write_task(tmp_path, "SC/mini")
    assert open_folder(tmp_path, "q-a").task_names == ("Q&A",)
    write_task(tmp_path, "Z/qa")
    with pytest.raises(ValueError, match=r"'TC/Q&A' and 'Z/qa' have one name, 'qa', .*; rename one of them"):
        open_folder(tmp_path)


def test_an_empty_list_of_labels_means_open_answers(tmp_path: Path) -> None:
    rows = [{"label": f"answer {i}", "sentence": f"row {i}"} for i in range(10)]
    write_task(tmp_path, labels=[], train=rows)
    (task,) = open_folder(tmp_path).tasks
    assert len(task.read("train")) + len(task.read("dev")) == 10
    assert task.instruction == "What is the sentiment of the following paragraph? "


def test_the_folder_is_found_by_its_variable_and_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path)
    monkeypatch.setenv("CL_BENCHMARK_DIR", str(tmp_path / "SC" / ".."))
    source = FolderSource(tasks=("mini",))
    assert source.located().folder == str(tmp_path)
    assert source.stream("own", Limits()).task_names == ("mini",)


def test_texts_are_skipped_by_their_bare_form(tmp_path: Path) -> None:
    write_task(tmp_path)
    source = FolderSource(folder=str(tmp_path), tasks=("mini",), skip_texts=("row 1", "Row,  2!"))
    (task,) = source.stream("own", Limits(dev_fraction=0)).tasks
    assert {example.row for example in task.read("train")} == {1, *range(4, 11)}


def test_rows_have_their_time_under_a_key(tmp_path: Path) -> None:
    rows = [{"label": "Good", "sentence": f"row {i}", "year": 2000 - i} for i in range(4)]
    write_task(tmp_path, train=rows, test=rows)
    source = FolderSource(folder=str(tmp_path), tasks=("mini",), time="year")
    (task,) = source.stream("own", Limits(dev_fraction=0)).tasks
    assert {(e.text, e.time) for e in task.read("train")} == {(f"row {i}", 2000.0 - i) for i in range(4)}
    (timeless,) = open_folder(tmp_path).tasks
    assert {e.time for e in timeless.read("test")} == {None}
    assert timeless.test_hash == task.test_hash
    (wrong,) = source.model_copy(update={"time": "yaer"}).stream("own", Limits()).tasks
    with pytest.raises(ValueError, match=r"train.json: key 'yaer': row 1 has no time"):
        wrong.read("train")
