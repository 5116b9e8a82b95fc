"""A plan says what a run then takes, and leaves nothing behind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from methods import PRESETS
from orchestrator import dry_run
from orchestrator.cli.app import app
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import read_view
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from tests.conftest import FAMILIES, small_config

QUIET = Console(file=io.StringIO())
STREAM = {"first": 3, "max_train": 24, "max_test": 4}


@pytest.mark.parametrize("model", FAMILIES)
def test_what_was_planned_is_what_a_run_takes(model: str, tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", model=model, methods=["ft", "ft+migu", "lora", "inclora"], stream=STREAM)
    totals = dry_run.estimate(config, QUIET, gpu=False)
    assert not (tmp_path / "out").exists(), "a plan writes nothing"
    known: set[str] = set()
    known_scores: set[str] = set()
    for total, sequence in zip(totals, plan(config), strict=True):
        run_sequence(sequence, evaluate=False)
        view = read_view(sequence.out, sequence.id)
        store = Store(Path(sequence.out))
        new = [key for key in sequence.keys[1:] if key not in known]
        tasks = [task for task, key in enumerate(sequence.keys[1:]) if key not in known]
        known.update(new)
        usage = [store.load(sequence.keys[task + 1]).history["usage"] for task in tasks]
        assert total.method == sequence.method.label
        assert (total.sequences, total.states) == (1, len(new))
        assert total.steps == sum(used["steps"] for used in usage)
        # three whole batches an epoch: every example is read once
        assert total.tokens == pytest.approx(sum(used["tokens"] for used in usage), abs=3)
        assert total.flops == pytest.approx(sum(used["flops"] for used in usage), rel=1e-6)
        sizes = [sum(w.numel() * 4 for w in store.load(key).weights.values()) for key in new]
        assert total.disk_bytes == sum(sizes)
        # four states, of which each is asked 4 examples of 3 tasks; those that methods share are asked once
        new_scores = {key for row in sequence.score_keys for key in row} - known_scores
        known_scores |= new_scores
        assert total.answers == 4 * len(new_scores)
        assert total.scoring_flops > 0
        assert view.tasks == sequence.tasks
    # what is there now is not to be made again
    again = dry_run.estimate(config, QUIET, gpu=False)
    assert [(total.states, total.steps, total.disk_bytes) for total in again] == [(0, 0, 0)] * 4
    assert [total.answers for total in again] == [total.answers for total in totals], "nothing was scored"


@pytest.mark.parametrize(
    ("changes", "answers", "states"),
    [
        ({}, 3 * 8, 2),
        # of two tasks: none before training, one after the first, two after the second
        ({"evaluation": {"rows": "seen"}}, 3 * 4, 2),
        ({"checkpoints": {"keep": "last"}}, 3 * 8, 1),
        ({"checkpoints": {"keep": "none"}}, 3 * 8, 0),
    ],
)
def test_what_is_asked_and_what_stays_follow_the_settings(
    changes: dict[str, Any], answers: int, states: int, tmp_path: Path
) -> None:
    stream = {"first": 2, "max_train": 8, "max_test": 4}
    config = small_config(tmp_path / "out", stream=stream, **changes)
    (total,) = dry_run.estimate(config, QUIET, gpu=False)
    (whole,) = dry_run.estimate(small_config(tmp_path / "out", stream=stream), QUIET, gpu=False)
    assert total.answers == answers
    assert total.states == 2, "each is trained, whether it stays or not"
    assert total.disk_bytes == states * whole.disk_bytes // 2


def test_a_scored_run_has_nothing_to_answer(tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", stream={"first": 2, "max_train": 8, "max_test": 2})
    (sequence,) = plan(config)
    run_sequence(sequence)
    (total,) = dry_run.estimate(config, QUIET, gpu=False)
    assert (total.answers, total.scoring_flops) == (0, 0)


def test_the_flops_of_an_answer_by_hand(tmp_path: Path) -> None:
    """2 for each parameter of a matrix product and each token that it reads."""
    config = small_config(tmp_path / "out", model="tiny-llama", stream={"first": 1, "max_train": 8, "max_test": 4})
    (sequence,) = plan(config)
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load_initial()
    module = learner.family.module
    parameters = sum(p.numel() for n, p in module.named_parameters() if p.ndim == 2 and "embed_tokens" not in n)
    (task,) = learner.stream.tasks
    features = learner.family.features(task, task.read("test"))
    tokens = sum(len(feature["source"]) + len(feature["target"]) for feature in features)
    (total,) = dry_run.estimate(config, QUIET, gpu=False)
    # before training and after it
    assert total.scoring_flops == 2 * 2 * parameters * tokens


def test_memory_by_hand(tmp_path: Path) -> None:
    """16 bytes for each weight that trains, 4 or 2 for a frozen one; 17 x 2 or 4 bytes a token and unit of width and block."""
    reading = {"stream": STREAM, "training": {"micro_batch": 4}, "model": "tiny-llama"}
    sizes = {}
    for method in ("lora", "ft"):
        (sequence,) = plan(small_config(tmp_path, methods=[method], **reading))
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load_initial()
        parameters = list(learner.family.module.parameters())
        sizes[method] = [sum(p.numel() for p in parameters if p.requires_grad == trains) for trains in (True, False)]
        blocks = list(learner.family.module.model.layers)  # type: ignore[union-attr, arg-type]
    tokens = 4 * (48 + 8)
    activations = len(blocks) * 17 * 4 * 32 * tokens

    def planned(method: str, **changes: object) -> int:
        config = small_config(tmp_path / "none", methods=[method], **{**reading, **changes})  # type: ignore[arg-type]
        (total,) = dry_run.estimate(config, QUIET, gpu=False)
        return total.memory_bytes

    trained, frozen = sizes["lora"]
    assert planned("ft") == 16 * sizes["ft"][0] + activations
    assert planned("lora") == 16 * trained + 4 * frozen + activations
    half = planned("lora", base="bf16", precision="bf16")
    assert half == 16 * trained + 2 * frozen + activations // 2
    again = planned("ft", training={"micro_batch": 4, "checkpoint_activations": True})
    assert again == 16 * sizes["ft"][0] + len(blocks) * 4 * 32 * tokens + activations // len(blocks)
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
    shared = planned("ft", scaling={"workers": 2, "strategy": "fsdp"})
    assert shared == 16 * sizes["ft"][0] // 2 + 4 * largest + activations


def test_hours_follow_from_the_rate() -> None:
    total = dry_run.Totals("ft", 1, 1, 1, 1, 3 * 3600 * 10**12, 1, 3600 * 10**12, 1, 1)
    assert total.hours(2.0) == 2.0
    assert [dry_run.shown_hours(hours) for hours in (0.00123, 1.26, 9.9, 1234.5)] == ["0.0012", "1.3", "9.9", "1,234"]


def test_a_machine_without_a_gpu_plans_what_it_runs(tmp_path: Path) -> None:
    """In the same precision, so that what it has trained is found; told otherwise, it is another plan."""
    config = small_config(tmp_path / "out", stream={"first": 1, "max_train": 8, "max_test": 2})
    (sequence,) = plan(config)
    run_sequence(sequence)
    states = [dry_run.estimate(config, QUIET, gpu)[0].states for gpu in (None, False, True)]
    assert states == [0, 0, 1]


@pytest.mark.parametrize("method", [name for name in PRESETS if name not in ("slca", "lfpt5")])
def test_every_method_can_be_planned(method: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, methods=[method], stream={"first": 2, "max_train": 8, "max_test": 2})
    (total,) = dry_run.estimate(config, QUIET, gpu=False)
    assert total.answers > 0


def test_the_command_prints_a_table_that_fits_and_json() -> None:
    small = ["--set", "streams=[{name: embedded, first: 2, max_train: 16, max_test: 4}]"]
    shown = CliRunner().invoke(app, ["plan", *small], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert "…" not in shown.output
    assert "GPU-hours at 150 TFLOP/s" in shown.output
    result = CliRunner().invoke(app, ["plan", *small, "--json"])
    rows = json.loads(result.stdout.strip().splitlines()[-1])["plan"]
    assert [row["method"] for row in rows] == ["ft", "ft+migu", "ft+random"]
    wrong = CliRunner().invoke(app, ["plan", "--set", "model.name=nosuch"])
    # which the command line makes one line and exit code 2 of
    assert isinstance(wrong.exception, UserError)


def test_scores_amid_training_are_counted(tmp_path: Path) -> None:
    """Three steps a task have points after 0, 1, 2 and 3: of one task, of two and of three, two of the four examples of each."""
    during = {"during": {"every": 2, "examples": 2}}
    silent, asked = (
        dry_run.estimate(
            small_config(tmp_path, methods=["ft"], stream=STREAM, evaluation=evaluation), QUIET, gpu=False
        )[0]
        for evaluation in ({}, during)
    )
    assert asked.answers - silent.answers == 4 * (1 + 2 + 3) * 2
    # a state's scores are those of four examples of three tasks: there are four states
    of_one_task = silent.scoring_flops / (4 * 3)
    assert asked.scoring_flops - silent.scoring_flops == pytest.approx(4 * (1 + 2 + 3) * of_one_task / 2, rel=0.2)
    assert (asked.steps, asked.flops, asked.disk_bytes) == (silent.steps, silent.flops, silent.disk_bytes)
