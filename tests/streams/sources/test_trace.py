"""TRACE's tasks, from small files in its layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams import SCORER_VERSIONS, Limits, Stream, named_stream
from streams.sources.trace import TraceSource

# the published order, and each task's metric (arXiv 2310.06762, table 1; its accuracy compares strings as they are)
PUBLISHED = [
    ("C-STANCE", "verbatim"),
    ("FOMC", "verbatim"),
    ("MeetingBank", "rouge-l"),
    ("Py150", "edit-similarity"),
    ("ScienceQA", "choice"),
    ("NumGLUE-cm", "verbatim"),
    ("NumGLUE-ds", "verbatim"),
    ("20Minuten", "sari"),
]


def write(folder: Path, tasks: list[str], rows: int = 6) -> Path:
    """A folder of tasks in TRACE's layout."""
    for task in tasks:
        path = folder / task
        path.mkdir(parents=True)
        for split in ("train", "eval", "test"):
            listed = [{"prompt": f"{task} {split} 问题 {i}\nText: {{x}}", "answer": f"答 {i}"} for i in range(rows)]
            (path / f"{split}.json").write_text(json.dumps(listed, ensure_ascii=False))
    return folder


def opened(folder: Path, **settings: Any) -> Stream:
    return TraceSource(folder=str(folder), **settings).stream("t", Limits(dev_fraction=0))


def test_eight_tasks_in_order_each_with_its_metric(tmp_path: Path) -> None:
    write(tmp_path, sorted(name for name, _ in PUBLISHED))
    stream = named_stream("trace", Limits(dev_fraction=0), tmp_path)
    assert [(task.name, task.scorer) for task in stream.tasks] == PUBLISHED
    assert {task.scorer for task in stream.tasks} <= set(SCORER_VERSIONS)


def test_a_prompt_is_left_as_it_is_and_an_answer_is_open(tmp_path: Path) -> None:
    (task,) = opened(write(tmp_path, ["FOMC"]), tasks=["fomc"]).tasks
    assert task.labels == ()
    rows = json.loads((tmp_path / "FOMC" / "train.json").read_text())
    expected = {row["prompt"]: row["answer"] for row in rows}
    assert {str(task.prompt(example.text)): example.label for example in task.read("train")} == expected
    assert {example.text for example in task.read("test")} == {f"FOMC test 问题 {i}\nText: {{x}}" for i in range(6)}
    # no file of an eval split is read: dev is carved from train
    held_out = TraceSource(folder=str(tmp_path), tasks=("FOMC",)).stream("t", Limits(dev_fraction=0.5)).tasks[0]
    assert {example.text for example in held_out.read("dev")} <= set(expected)
    assert task.dataset == "trace/fomc"


def test_the_folder_is_found_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ["py150"])
    monkeypatch.setenv("TRACE_DIR", str(tmp_path))
    assert TraceSource(tasks=("Py150",)).stream("t", Limits()).task_names == ("Py150",)
    assert TraceSource(tasks=("Py150",)).located().folder == str(tmp_path)
    monkeypatch.delenv("TRACE_DIR")
    with pytest.raises(ValueError, match="stream 'trace' reads a local folder: set `folder`, or TRACE_DIR"):
        named_stream("trace")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    write(tmp_path, ["FOMC", "Py150"])
    with pytest.raises(ValueError, match=r"has no C-STANCE/train.json \(its tasks: FOMC, Py150\)"):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"unknown task 'FOMX'. Did you mean 'FOMC'"):
        opened(tmp_path, tasks=["FOMX"])
    with pytest.raises(ValueError, match="does not exist"):
        opened(tmp_path / "nowhere")
    file = tmp_path / "FOMC" / "train.json"
    for content, problem in (
        ('[{"prompt": "a", "answer": 1}]', 'row 1 is not {"prompt": text, "answer": text}'),
        ("[]", "expected a list of rows, at least one"),
        ('{"prompt": "a"}', "expected a list of rows"),
        ('[\n{"prompt"', "line 2: malformed JSON"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError) as caught:
            opened(tmp_path, tasks=["FOMC"]).tasks[0].read("train")
        assert str(file) in str(caught.value) and problem in str(caught.value)
