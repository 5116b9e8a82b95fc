"""Whether a task's files are the published ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from streams import ORDERS, Limits, Stream, named_stream
from streams.manifest import file_checker, published_sizes, verdict_of
from streams.manifest.published import benchmark
from streams.sources.folder import canonical, folder_task

# what the maker of the copies says of them
RE_SPLIT = {
    "imdb": "re-split",
    "yelp": "re-split",
    "dbpedia": "re-split",
    "multirc": "re-split",
    "yahoo": "other sample",
}


def verdicts(path: Path, name: str) -> dict[str, str]:
    check = file_checker(path, name)
    assert check is not None
    return {one.file: one.verdict for one in check(["train", "test"])}


@pytest.fixture
def cb(tmp_path: Path, benchmark_folder: Path) -> Path:
    """A copy of the smallest task's folder."""
    return Path(shutil.copytree(benchmark_folder / "NLI" / "CB", tmp_path / "NLI" / "CB"))


def test_it_has_each_task_of_the_orders_and_says_what_is_not_known() -> None:
    assert set(benchmark()) == set(ORDERS["order4"])
    for entry in benchmark().values():
        for split in ("train", "test"):
            assert entry[split]["file_sha256"] == "unknown"
            known = entry[split]["rows_sha256"] != "unknown"
            assert known == (entry[split]["rows"] != "unknown") == (entry[split]["characters"] != "unknown")
    assert published_sizes("mnli") == (3000, 7600)
    assert published_sizes("multirc") == (2000, None)
    assert published_sizes("yahoo") == (None, None)


def test_the_copies_are_what_is_said_of_them(benchmark_folder: Path) -> None:
    for task in named_stream("order4", Limits(), benchmark_folder).tasks:
        assert task.check_files is not None
        assert verdict_of(task.check_files(["train", "test"])) == RE_SPLIT.get(canonical(task.name), "published")


def test_a_file_is_named_by_its_size_and_hash(cb: Path) -> None:
    check = file_checker(cb, "cb")
    assert check is not None
    content = (cb / "test.json").read_bytes()
    (labels, train, test) = check(["train", "test"])
    assert (labels.file, train.file, test.file) == ("labels.json", "train.json", "test.json")
    assert (test.size, test.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    # a sealed test split is not looked at
    assert [one.file for one in check(["train"])] == ["labels.json", "train.json"]


def test_rows_count_in_whatever_order_and_form(cb: Path) -> None:
    rows = json.loads((cb / "train.json").read_text())
    # as the published file is written, whose size is known: one list in one line
    written = json.dumps(rows, ensure_ascii=False)
    assert len(written) == benchmark()["cb"]["train"]["characters"]
    turned = [{"sentence": row["sentence"], "label": row["label"]} for row in reversed(rows)]
    for form in (written, json.dumps(turned, indent=3)):
        (cb / "train.json").write_text(form)
        assert verdicts(cb, "cb")["train.json"] == "published"


@pytest.mark.parametrize("change", [{"label": "neutral"}, {"sentence": "Another text."}])
def test_another_row_is_another_file(cb: Path, change: dict[str, Any]) -> None:
    rows = json.loads((cb / "train.json").read_text())
    assert rows[0]["label"] != "neutral"
    for changed in ([{**rows[0], **change}, *rows[1:]], rows[1:], [*rows, rows[0]]):
        (cb / "train.json").write_text(json.dumps(changed))
        assert verdicts(cb, "cb") == {"labels.json": "published", "train.json": "differs", "test.json": "published"}


def test_labels_count_in_their_order(cb: Path) -> None:
    (cb / "labels.json").write_text('["contradiction", "entailment", "neutral"]')
    assert verdicts(cb, "cb")["labels.json"] == "differs"


def test_the_file_that_copies_were_split_from_is_published(tmp_path: Path, benchmark_folder: Path) -> None:
    """IMDB's published train file is known, its test file is not."""
    task = tmp_path / "SC" / "IMDB"
    shutil.copytree(benchmark_folder / "SC" / "IMDB", task)
    rows = json.loads((task / "train.json").read_text()) + json.loads((task / "test.json").read_text())
    (task / "train.json").write_text(json.dumps(rows))
    (task / "test.json").write_text(json.dumps(rows[:100]))
    assert verdicts(task, "imdb") == {
        "labels.json": "published",
        "train.json": "published",
        "test.json": "unknown",
    }
    check = file_checker(task, "imdb")
    assert check is not None
    assert verdict_of(check(["train"])) == "published"
    assert verdict_of(check(["train", "test"])) == "unknown"


def test_a_dev_file_is_said_to_be_the_test_file(cb: Path) -> None:
    check = file_checker(cb, "cb")
    assert check is not None
    shutil.copy(cb / "test.json", cb / "dev.json")
    (one,) = [one for one in check(["train", "test"]) if one.file == "dev.json"]
    assert one.why == "not read; it is test.json, byte for byte"
    assert verdict_of(check(["train", "test"])) == "published"
    (cb / "dev.json").write_text("[]")
    (one,) = [one for one in check(["train", "test"]) if one.file == "dev.json"]
    assert one.why == "not read"


def test_tasks_of_one_s_own_are_compared_with_nothing(tmp_path: Path) -> None:
    assert file_checker(tmp_path / "SC" / "mine", "mine") is None
    assert file_checker(tmp_path / "Mine" / "yelp", "yelp") is None
    assert file_checker(tmp_path / "SC" / "yelp", "yelp") is not None


def test_a_run_s_manifest_has_the_verdict(cb: Path) -> None:
    task = folder_task(cb)
    assert Stream("s", (task,)).manifest()[0]["published"] == "published"
    rows = json.loads((cb / "test.json").read_text())
    (cb / "test.json").write_text(json.dumps(rows[1:]))
    assert Stream("s", (folder_task(cb),)).manifest()[0]["published"] == "differs"
    assert Stream("s", (folder_task(cb),)).sealed().manifest()[0]["published"] == "published"
    # keys are made of the content alone
    assert folder_task(cb).train_hash == task.train_hash
