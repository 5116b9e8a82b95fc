"""Hub data from local files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from streams import (
    HubSource,
    HubTask,
    Limits,
    Stream,
)


def open_hub(*tasks: HubTask) -> Stream:
    return HubSource(tasks=tasks).stream("own", Limits())


def write_rows(folder: Path) -> None:
    for split, count in (("train", 12), ("test", 3)):
        lines = [json.dumps({"title": f"T{i}", "text": f"{split} {i}", "label": i % 2}) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))


def test_hub_data_reads_from_local_files(tmp_path: Path) -> None:
    write_rows(tmp_path)
    spec = HubTask(
        name="pairs", hub=str(tmp_path), text=("title", "text"), labels=("zero", "one"), instruction="Which? "
    )
    (task,) = open_hub(spec).tasks
    assert {e.text for e in task.read("test")} == {"T0\ntest 0", "T1\ntest 1", "T2\ntest 2"}
    assert {e.label for e in task.read("train")} == {"zero", "one"}
    assert all(e.text.endswith(f"test {e.row - 1}") for e in task.read("test"))
    wrong = HubTask(name="pairs", hub=str(tmp_path), text="body", labels=("zero", "one"))
    with pytest.raises(ValueError, match="has no column 'body'"):
        open_hub(wrong).tasks[0].read("train")


def test_hub_data_must_be_pinned() -> None:
    with pytest.raises(ValueError, match="needs a pinned `revision`"):
        HubTask(name="news", hub="some/dataset")


def test_hub_data_has_one_identity_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "Yelp-Full").mkdir()
    specs = [
        HubTask(name="a", hub="Some-Org/News", revision="0" * 40, labels=("x", "y")),
        HubTask(name="b", hub="nyu-mll/GLUE", revision="0" * 40, config="MNLI", labels=("x", "y")),
        HubTask(name="c", hub=str(tmp_path / "Yelp-Full"), labels=("x", "y")),
    ]
    assert [t.dataset for t in open_hub(*specs).tasks] == ["some-org/news", "nyu-mll/glue/mnli", "yelpfull"]


def test_an_empty_list_of_labels_means_open_answers(tmp_path: Path) -> None:
    write_rows(tmp_path)
    (task,) = open_hub(HubTask(name="pairs", hub=str(tmp_path), label="title", labels=())).tasks
    assert {(e.text, e.label) for e in task.read("test")} == {(f"test {i}", f"T{i}") for i in range(3)}
    with pytest.raises(ValueError, match=r"declares no names; give `labels` \(\[\]: answers are open\)"):
        open_hub(HubTask(name="pairs", hub=str(tmp_path), label="title"))


def test_names_and_mappings_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="mixes folder tasks"):
        HubSource.model_validate({"tasks": [{"name": "news", "hub": "a/b", "revision": "c"}, "yelp"]})


@pytest.mark.parametrize("wrong", [{"text": []}, {"text": [True]}, {"labels": [True, False]}, {"name": True}])
def test_what_names_no_column_and_no_text_is_refused(wrong: dict[str, object]) -> None:
    good = {"name": "news", "hub": "some/set", "revision": "abc", "text": ["title"]}
    HubTask.model_validate(good)
    with pytest.raises(ValidationError) as caught:
        HubTask.model_validate({**good, **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`revision` goes with data on the hub; .* is a folder"):
        HubTask(name="news", hub=str(tmp_path), revision="abc")


def test_hub_rows_have_the_time_of_a_column(tmp_path: Path) -> None:
    write_rows(tmp_path)
    spec = HubTask(name="pairs", hub=str(tmp_path), labels=("zero", "one"), time="title")
    (task,) = open_hub(spec).tasks
    assert {(e.text, e.time) for e in task.read("test")} == {(f"test {i}", f"T{i}") for i in range(3)}
    with pytest.raises(ValueError, match="has no column 'year'"):
        open_hub(spec.model_copy(update={"time": "year"})).tasks[0].read("train")


def test_a_folder_that_is_not_there_is_not_asked_for_a_revision() -> None:
    for folder in ("./nowhere", "/no/where", "~/nowhere"):
        with pytest.raises(ValidationError, match="does not exist"):
            HubTask(name="news", hub=folder)
