"""What a user is told of data before training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.data_report import print_reports, report
from orchestrator.errors import UserError


def shown(reports: list[dict[str, object]]) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        print_reports(reports, console)
    return captured.get()


def write_tasks(folder: Path) -> str:
    """A configuration of two tasks of 20 rows: one has labels that nobody knows, and both have one content."""
    for name in ("one", "two"):
        task = folder / "X" / name
        task.mkdir(parents=True)
        (task / "labels.json").write_text('["a", "b"]')
        for split, first in (("train", 0), ("test", 20)):
            rows = [{"sentence": f"text {i}", "label": "ab"[i % 2]} for i in range(first, first + 20)]
            if name == "one" and split == "test":
                rows += [{"sentence": f"odd text {i}", "label": "vwxyz"[min(i, 4)]} for i in range(6)]
            rows[1]["sentence"] += " "
            if name == "two" and split == "train":
                rows[0]["sentence"] = " "
            (task / f"{split}.json").write_text(json.dumps(rows))
    file = folder / "mine.yaml"
    file.write_text(f"streams: [{{name: mine, folder: {folder}, tasks: [one, two], max_test: 10}}]\nmethods: [ft]\n")
    return str(file)


def test_a_user_s_own_data(tmp_path: Path) -> None:
    (one,) = report(write_tasks(tmp_path))
    assert one["source"] == "folder"
    assert [task["sizes"] for task in one["tasks"]] == [{"train": 18, "dev": 2, "test": 10}] * 2
    assert one["tasks"][0]["dropped_labels"] == {"train": {}, "test": {"z": 2, "v": 1, "w": 1, "x": 1, "y": 1}}
    assert [(leak["kind"], leak["refused"]) for leak in one["leaks"]] == [("same-task-twice", True)]
    text = shown([one])
    assert (
        "one, test: left out for labels outside the label set: 'z' (2 rows), 'v' (1 rows), 'w' (1 rows) and 2 more labels"
        in text
    )
    assert "leak, refused: stream 'mine', tasks 'one' and 'two': 29 rows" in text
    assert "task 'two': 1 of 18 train texts are empty: their answers can only be guessed" in text
    assert "published" not in text


def test_the_exit_code_says_whether_a_run_takes_it(tmp_path: Path) -> None:
    file = write_tasks(tmp_path)
    result = CliRunner().invoke(app, ["data", file, "--json"])
    assert result.exit_code == 1
    (one,) = json.loads(result.stdout.splitlines()[-1])["data"]
    assert one == report(file)[0]
    text = Path(file).read_text()
    Path(file).write_text(text.replace("max_test", "allow: [same-task-twice], max_test"))
    assert CliRunner().invoke(app, ["data", file]).exit_code == 0


def test_a_folder_of_the_benchmark(tmp_path: Path, benchmark_folder: Path) -> None:
    for task in ("SC/amazon", "TC/yahoo", "TC/dbpedia", "TC/agnews"):
        (tmp_path / task).parent.mkdir(exist_ok=True)
        shutil.copytree(benchmark_folder / task, tmp_path / task)
    (one,) = report("order1", str(tmp_path))
    assert [task["published"] for task in one["tasks"]] == ["re-split", "published", "other sample", "published"]
    text = shown([one])
    assert "dbpedia, train.json and test.json: train and test are 75 and 25 % of the published test file" in text
    assert "no test text is in train" in text


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--folder: stream 'embedded' reads no folder"):
        report("embedded", str(tmp_path))
    with pytest.raises(UserError, match="holds no task"):
        report("order1", str(tmp_path))
    with pytest.raises(UserError, match="no_such"):
        report("no_such")


def test_of_corpora_no_leak_is_denied() -> None:
    (one,) = report("embedded-cpt")
    assert one["not_compared"] == ["karst", "veldt", "tundra", "pampa"]
    assert one["tasks"][0]["sizes"] == {"train": 361, "dev": 39, "test": 60}
    lines = shown([one])
    assert "corpora, of which no text is compared with another: karst, veldt, tundra, pampa" in lines
    assert "no test text is in train" not in lines
    (labelled,) = report("embedded")
    assert "no test text is in train, and no two tasks are one" in shown([labelled])
