"""`run`, `tune`, `evaluate` and `report`: bad input is one line before anything is written, and a report needs no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.streams.sources.test_folder import write_task

Call = Callable[..., tuple[int, str, str]]

BAD = [
    (["run", "embeded"], "unknown recipe 'embeded'. Did you mean 'embedded'?"),
    (["run", "/no/such.yaml"], "/no/such.yaml: no such file"),
    (["run", "--set", "methods=[nope]"], "unknown method 'nope'"),
    (["run", "--set", "model.name=tiny-t7"], "unknown model 'tiny-t7'. Did you mean 'tiny-t5'?"),
    (["run", "--set", "streams=[orderx]"], "unknown stream 'orderx'"),
    (["run", "--set", "training.lrr=1"], "unknown key 'lrr'. Did you mean 'lr'?"),
    (["run", "order1-t5", "--set", "model.name=tiny-t5"], "set `folder`, or CL_BENCHMARK_DIR"),
    (["run", "--set", "scaling.workers=32", "--set", "training.micro_batch=1"],
     "asks for 32 x (1 CPU, 0 GPU), but the cluster has"),
    (["run", "--set", "training.global_batch=33", "--set", "scaling.workers=2"], "33 does not divide by scaling.workers = 2"),
    (["run", "--set", "methods=[{tuning: full, plugins: [{name: migu, ratio: 2}]}]"], "less than or equal to 1"),
    (["run", "--set", "tracking.uri=somewhere"], "'somewhere' is not an MLflow URI"),
    (["report", "nothing"], "no experiment 'nothing'"),
    (["evaluate", "nothing"], "no experiment 'nothing'"),
    (["run", "embedded-quick"], "give `orchestrator tune embedded-quick`, or --set search=null"),
    (["tune", "embedded"], "search: this recipe has no such section"),
    (["tune", "embedded-quick", "--set", "search.streams=[{name: embedded, max_train: 240}]"],
     "'generated/reviews'; holdout 'tasks' forbids it"),
    (["tune", "embedded-quick", "--set", "search.streams.max_train=100"], "not the same scenario"),
    (["tune", "embedded-quick", "--set", "search.space={migu.ration: [0.1]}"], "Did you mean 'migu.ratio'?"),
    (["tune", "embedded-quick", "--set", "search.holdot=tasks"], "search: unknown key 'holdot'. Did you mean 'holdout'?"),
    (["tune", "embedded-quick", "--set", "search.space={training.lr: [0]}"], "search.space.training.lr: 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, call: Call, tmp_path: Path) -> None:
    code, stdout, stderr = call(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert stdout == ""
    assert message in stderr
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists(), "something was half-written"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": '[\n{"label": oops}]'}, "train.json, line 2: malformed JSON"),
        ({"test": []}, "test.json: the test split is empty"),
    ],
)
def test_bad_data_is_one_line_and_exit_code_2(
    files: dict[str, object], message: str, call: Call, tmp_path: Path
) -> None:
    write_task(tmp_path / "data", **files)
    streams = f"streams=[{{name: own, folder: {tmp_path / 'data'}, tasks: [mini]}}]"
    code, _, stderr = call("run", "--set", streams, "--out", tmp_path / "out")
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_storage_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, _, stderr = call("run", "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "out: cannot write to" in stderr


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """An experiment whose sequence was trained without scores; gives the output folder."""
    config = small_config(tmp_path / "out", model="tiny-bert")
    Experiment(config, tuple(plan(config))).save()
    run_sequence(plan(config)[0], evaluate=False)
    return tmp_path / "out"


def test_a_report_whose_files_cannot_be_written_is_printed_all_the_same(call: Call, tmp_path: Path) -> None:
    """Root may write to a read-only folder; that a file's place is taken by a folder holds for everybody."""
    config = small_config(tmp_path / "out")
    Experiment(config, tuple(plan(config))).save()
    folder = tmp_path / "out" / "experiments" / "small"
    (folder / "summary.csv").mkdir()
    code, stdout, stderr = call("report", "small", "--out", tmp_path / "out")
    assert (code, stderr) == (1, "")
    assert "waiting" in stdout
    assert stdout.endswith(f"the CSV files in {folder} could not be written: Is a directory\n")


@pytest.mark.slow
def test_evaluate_fills_what_is_missing_and_report_reads_it(finished: Path, call: Call) -> None:
    code, _, _ = call("report", "small", "--out", finished)
    assert code == 0
    code, out, err = call("evaluate", "small", "--out", finished, "--json")
    assert code == 0, err
    (sequence,) = json.loads(out.splitlines()[-1])["sequences"]
    assert sequence["status"] == "finished"
    assert sequence["aa"] == pytest.approx(sum(sequence["accuracy_matrix"][-1]) / 5)
    view = read_view(finished, sequence["id"])
    assert len(view.scores) == 30
    code, out, _ = call("report", "small", "--out", finished, "--matrices", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["sequences"][0]["accuracy_matrix"] == sequence["accuracy_matrix"]
    code, out, _ = call("report", "small", "--out", finished, "--matrices")
    assert "score (%) on each task after each task" in out
    assert "bold" not in out
    moved = finished.rename(finished.with_name("moved"))
    code, out, _ = call("report", "small", "--out", moved, "--json")
    assert json.loads(out.splitlines()[-1])["out"] == str(moved)
    assert json.loads(out.splitlines()[-1])["sequences"][0]["aa"] == sequence["aa"]
    finished = moved
    lines = (finished / "experiments" / "small" / f"matrix-{sequence['id']}.csv").read_text().splitlines()
    assert lines[0] == "after,reviews,headlines,requests,feelings,riddles"
    assert len(lines) == 7
    summary = (finished / "experiments" / "small" / "summary.csv").read_text().splitlines()
    assert summary[0].startswith("method,stream,seed,scoring,unit,aa")
    assert summary[1].startswith("ft,embedded,7,")
