"""Tasks from files of rows, in every form, with one line on what is wrong in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streams import Example, FilesSource, Limits, SealedSplit, Task, resolve_source

ROWS = [{"text": f'T {i}, "quoted"\nline', "label": ["no", "yes"][i % 2]} for i in range(6)]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the form that the file's name says, by other means than the source has."""
    if file.suffix == ".parquet":
        import pandas

        pandas.DataFrame(rows).to_parquet(file)
    elif file.suffix in (".csv", ".tsv"):
        import pandas

        pandas.DataFrame(rows).to_csv(file, index=False, sep={".csv": ",", ".tsv": "\t"}[file.suffix])
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows, indent=1))
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if file.suffix == ".gz":
            file.write_bytes(gzip.compress(text.encode()))
        else:
            file.write_text(text)
    return file


def open_task(**settings: Any) -> Task:
    name, kind, own = resolve_source("mine", {"tasks": [{"name": "a", **settings}]})
    assert name == "files"
    (task,) = kind.model_validate(own).stream("mine", Limits(dev_fraction=0)).tasks
    return task


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.tsv", "r.parquet", "r.jsonl.gz"])
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, ROWS)
    task = open_task(train=str(file), test=str(file))
    assert task.labels == ("no", "yes")
    found = sorted(task.read("train"), key=lambda example: example.row)
    assert [(e.text, e.label, e.row) for e in found] == [(r["text"], r["label"], i) for i, r in enumerate(ROWS, 1)]


def test_what_windows_writes_reads_the_same(tmp_path: Path) -> None:
    """A mark at the file's beginning is no part of the first column's name, and lines end in two characters."""
    (tmp_path / "r.csv").write_bytes("text,label\r\nçà,x\r\nb,y\r\n".encode("utf-8-sig"))
    task = open_task(train=str(tmp_path / "r.csv"), test="t.csv")
    assert {(e.text, e.label) for e in task.read("train")} == {("çà", "x"), ("b", "y")}


def test_several_files_and_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "b-1.jsonl", ROWS[2:4])
    write(tmp_path / "a-1.jsonl", ROWS[:2])
    write(tmp_path / "c.csv", ROWS[4:])
    task = open_task(train=[str(tmp_path / "*-1.jsonl"), str(tmp_path / "c.csv")], test=str(tmp_path / "c.csv"))
    assert [e.text for e in sorted(task.read("train"), key=lambda e: e.row)] == [row["text"] for row in ROWS]


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROWS).rename(tmp_path / "rows.json")
    assert len(open_task(train=str(tmp_path / "rows.json"), test="t.csv").read("train")) == 6


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_integers_are_indices_of_labels_that_are_given_and_texts_else(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"t{i}", "label": i} for i in (10, 2, 1)]
    file = str(write(tmp_path / name, rows))
    found = open_task(train=file, test=file)
    assert found.labels == ("1", "10", "2")
    assert {(e.text, e.label) for e in found.read("train")} == {("t10", "10"), ("t2", "2"), ("t1", "1")}
    given = open_task(train=file, test=file, labels=["none", "one", "two"])
    assert {(e.text, e.label) for e in given.read("train")} == {("t2", "two"), ("t1", "one")}
    assert given.dropped_rows("train") == 1


def test_test_files_may_have_columns_of_their_own(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", [{"question": "q", "solution": "s", "label": "x"}])
    test = write(tmp_path / "test.csv", [{"prompt": "p", "checks": "c"}])
    settings = {"train": str(train), "test": str(test), "text": "question", "label": "solution", "labels": []}
    task = open_task(**settings, test_text="{prompt}:", test_label="checks")
    assert (task.read("train"), task.read("test")) == ((Example("q", "s"),), (Example("p:", "c"),))
    with pytest.raises(ValueError, match="has no column 'question'"):
        open_task(**settings).read("test")


def test_open_answers_are_said_to_be_open(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": f"answer {i}"} for i in range(501)]
    file = str(write(tmp_path / "r.jsonl", rows))
    with pytest.raises(ValueError, match=r"task 'a': column 'label' has 501 different texts; give `labels` \(\[\]"):
        open_task(train=file, test=file)
    assert open_task(train=file, test=file, labels=[]).read("train")[0].label.startswith("answer ")


def test_the_test_file_is_not_read_before_it_is_asked_for(tmp_path: Path) -> None:
    file = str(write(tmp_path / "r.jsonl", ROWS))
    task = open_task(train=file, test=str(tmp_path / "missing.csv"))
    assert task.read("train")
    with pytest.raises(ValueError, match=r"task 'a': no such file: .*missing.csv"):
        task.read("test")
    with pytest.raises(SealedSplit):
        task.sharing(sealed=True).read("test")


def test_paths_become_full_and_addresses_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    source = FilesSource.model_validate(
        {"tasks": [{"name": "a", "train": "r.csv", "test": ["s3://b/k.csv"]}]}
    ).located()
    assert source.tasks[0].train == (str(tmp_path / "r.csv"),)
    assert source.tasks[0].test == ("s3://b/k.csv",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", b'{"text": "a", "label": "b"}\n{"text":', "r.jsonl, line 2: malformed JSON: Expecting value"),
        ("r.jsonl", b'["a"]\n', "r.jsonl, line 1: expected an object with a value for each column, found list"),
        ("r.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n', "r.jsonl, row 2 has no column 'label'"),
        ("r.jsonl", b"\xff\xfe\n", "r.jsonl, line 1: not UTF-8 text"),
        ("r.json", b'{"text": "a", "label": "b"}\n{"text":', "r.json, line 2: malformed JSON"),
        ("r.json", b"[1]", "r.json, row 1: expected an object"),
        ("r.json", b"3", "r.json: expected a list of rows, found int"),
        ("r.json", b"[\n{,}]", "r.json, line 2: malformed JSON"),
        ("r.csv", b"text,label\na,b\nc\n", "r.csv, line 3: as many cells as the first line has are expected, 2"),
        ("r.csv", b"text,label\na,b,c\n", "r.csv, line 2: as many cells"),
        ("r.csv", b'text,label\n"a\n', "r.csv, after line 1: malformed CSV: unexpected end of data"),
        ("r.csv", b"text,lable\na,b\n", r"r.csv, row 1 has no column 'label' \(it has text, lable\)"),
        ("r.parquet", b"text", "r.parquet: no Parquet file"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_task(train=str(tmp_path / name), test="t.csv", labels=[]).read("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("paths", ["rows.txt", [], "rows"])
def test_a_file_of_another_form_is_refused(paths: Any) -> None:
    with pytest.raises(ValueError, match=r"ends in \.jsonl, \.json, \.csv, \.tsv, \.parquet|at least one"):
        open_task(train=paths, test="t.csv")


def test_a_storage_that_is_not_installed_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"task .a.: cannot read .nowhere://b/k\.csv.: "):
        open_task(train="nowhere://b/k.csv", test="t.csv")


def test_row_numbers_go_on_over_files(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.csv", ROWS[:2]), write(tmp_path / "2.csv", ROWS[2:4])
    task = open_task(train=[str(one), str(two)], test="t.csv")
    assert {(e.row, e.text) for e in task.read("train")} == {(i, r["text"]) for i, r in enumerate(ROWS[:4], 1)}
    assert Example("x", "y") == Example("x", "y", 3)
