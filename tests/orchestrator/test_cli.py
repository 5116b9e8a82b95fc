"""The command line without Ray: what it lists, and how it answers bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from tests.streams.sources.test_folder import write_task

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the console command in this process; gives (exit code, stdout, stderr)."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CL_BENCHMARK_DIR", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["orchestrator", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize("what", ["methods", "streams", "models", "recipes"])
def test_lists(what: str, call: Call) -> None:
    code, out, _ = call("list", what, "--json")
    rows = json.loads(out.splitlines()[-1])[what]
    assert code == 0
    assert {r["name"] for r in rows} >= {
        "methods": {"ft", "ft+migu", "lora+migu", "migu", "random_mask"},
        "streams": {"embedded", "order1", "order6"},
        "models": {"tiny-t5", "tiny-bert", "tiny-llama", "minilm"},
        "recipes": {"embedded", "order4-minilm", "order1-t5", "order6-t5"},
    }[what]
    code, table, _ = call("list", what)
    assert code == 0
    assert rows[0]["name"] in table


def test_help_names_the_commands(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "list", "evaluate", "report", "ui"):
        assert command in out


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
    (["run", "--set", "tracking.uri=http://127.0.0.1:9"], "no MLflow server answers at http://127.0.0.1:9"),
    (["run", "--set", "tracking.uri=somewhere"], "'somewhere' is not an MLflow URI"),
    (["list", "method"], "unknown list 'method'. Did you mean 'methods'?"),
    (["report", "nothing"], "no experiment 'nothing'"),
    (["evaluate", "nothing"], "no experiment 'nothing'"),
    (["ui"], "no MLflow store at"),
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
    out = [] if arguments[0] == "list" else ["--out", tmp_path / "out"]
    code, stdout, stderr = call(*arguments, *out)
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
def finished(sequence_of: Callable[..., SequencePlan], tmp_path: Path) -> Path:
    """An experiment whose sequence was trained without scores; gives the output folder."""
    from orchestrator.planning.experiment import Experiment
    from orchestrator.planning.planner import plan
    from tests.conftest import small_config

    config = small_config(tmp_path / "out", model="tiny-bert")
    Experiment(config, tuple(plan(config))).save()
    run_sequence(plan(config)[0], evaluate=False)
    return tmp_path / "out"


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
    assert summary[0].startswith("method,stream,seed,aa")
    assert summary[1].startswith("ft,embedded,7,")
