"""The test-access log: who read a test split, and why, whatever a crash left of it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.integrity import seal
from tests.streams.examples import Loads


def test_each_test_split_is_noted_once_and_no_train_split(tmp_path: Path) -> None:
    log = TestAccessLog(tmp_path)
    stream = Loads().stream().watched(log.reader("mine", "ft-s1", "scores"))
    first, second = stream.tasks
    first.read("train")
    assert log.entries() == [], "train is no secret"
    assert not log.folder.exists()
    second.read("test")
    second.read("test")
    first.read("test")
    entries = log.entries()
    assert [entry["task"] for entry in entries] == ["b", "a"]
    assert {(entry["experiment"], entry["by"], entry["why"]) for entry in entries} == {("mine", "ft-s1", "scores")}


def test_the_data_set_is_noted_by_its_own_name(tmp_path: Path) -> None:
    log = TestAccessLog(tmp_path)
    task, _ = Loads().stream().tasks
    log.reader("mine", "plan", "keys")(replace(task, dataset="nyu-mll/glue/rte"))
    (entry,) = log.entries()
    assert (entry["dataset"], entry["task"]) == ("nyu-mll/glue/rte", "a")


def test_every_process_has_a_file_of_its_own_and_reads_them_all_oldest_first(tmp_path: Path) -> None:
    log = TestAccessLog(tmp_path)
    log.reader("mine", "here", "scores")(Loads().stream().tasks[0])
    (own,) = log.folder.iterdir()
    assert own.name == f"{socket.gethostname()}-{os.getpid()}.jsonl"
    (log.folder / "zeus-7.jsonl").write_bytes(
        seal({"time": 5, "by": "later"}) + b"\n" + seal({"time": 4, "by": "first"})
    )
    assert [entry["by"] for entry in log.entries()] == ["first", "later", "here"]


def test_a_torn_line_takes_no_other_with_it(tmp_path: Path) -> None:
    log = TestAccessLog(tmp_path)
    log.folder.mkdir()
    whole = seal({"time": 1, "by": "a"})
    changed = seal({"time": 2, "by": "b"}).replace(b'"b"', b'"c"')
    (log.folder / "m-1.jsonl").write_bytes(b"\n".join([whole[:9], whole, changed, b""]))
    assert [entry["by"] for entry in log.entries()] == ["a"]
