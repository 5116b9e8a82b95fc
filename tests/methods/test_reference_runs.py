"""Reference runs: the untrained model, an expert for each task, and all tasks at once, in the table of the methods."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from methods import REFERENCE_RUNS, method_spec, run_kind
from orchestrator.config.method import MethodEntry
from orchestrator.evaluation.metrics import summary
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.results import results
from orchestrator.report.tables import print_report
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved
from orchestrator.store.records.event import Event
from orchestrator.store.view import View
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import small_config
from tests.steps import steps_of

FEW: dict[str, Any] = {"stream": {"max_train": 16, "first": 3}}


def loaded(sequence: SequencePlan, tasks_seen: int) -> dict[str, torch.Tensor]:
    return dict(Store(Path(sequence.out)).load(sequence.keys[tasks_seen]).weights)


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_zero_shot_trains_nothing(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(model=model, methods=["zero-shot"], **FEW)
    view = run_sequence(sequence)
    assert not any(task.steps for task in view.by_task.values())
    matrix = view.matrix()
    assert (matrix == matrix[0]).all()
    plain = run_sequence(sequence_of("other", model=model, methods=["ft"], **FEW))
    np.testing.assert_array_equal(matrix[0], plain.matrix()[0])
    assert len(list((Path(sequence.out) / "scores").glob("*.json"))) == 3, "one state, so one score a task"


RATES: dict[str, dict[str, Any]] = {
    "constant": {},
    "outer": {"outer": "cosine", "schedule": "linear"},
    "infinite": {"schedule": "infinite", "warmup": 0.1, "infinite": {"anneal": 0.5}},
}


@pytest.mark.parametrize("training", RATES.values(), ids=RATES)
@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_joint_training_is_one_task_of_all_the_examples(
    model: str,
    training: dict[str, Any],
    sequence_of: Callable[..., SequencePlan],
    learner_of: Callable[..., Learner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sequence = sequence_of(model=model, methods=["joint"], training=training, **FEW)
    view = run_sequence(sequence)
    assert [len(view.by_task[t].steps) for t in range(3)] == [0, 0, 6]  # 48 examples in batches of 8
    assert (view.matrix()[:3] == view.matrix()[0]).all()

    plain = learner_of(model=model, methods=["ft"], training=training, **FEW)
    everything = [f for task in range(3) for f in plain.features(task)]
    # what fine-tuning does with a first task that has all the examples and labels
    monkeypatch.setattr(plain, "training_set", lambda task_id: everything)
    monkeypatch.setattr(plain.family, "at_task", lambda before, now: None)
    trained = train_task(plain, 0, lambda event: None)
    assert [s["lr"] for s in trained.history["steps"]] == [s.lr for s in steps_of(sequence.out, sequence.id, 2)]
    for name, weight in trained.weights.items():
        assert torch.equal(weight, loaded(sequence, 3)[name]), name


def test_joint_training_that_breaks_at_once_is_made_again(sequence_of: Callable[..., SequencePlan]) -> None:
    """The model is then trained already, and has to begin anew."""
    settings = {"methods": ["joint"], "training": RATES["infinite"], **FEW}
    whole, broken = (sequence_of(out, **settings) for out in ("whole", "broken"))
    run_sequence(whole, evaluate=False)
    seen = []

    def spoil(event: Event) -> None:
        seen.append(event.name)
        if isinstance(event, CheckpointSaved) and event.task_id == 2:
            (Store(Path(broken.out)).path(broken.keys[3]) / "resume.safetensors").write_bytes(b"broken")

    run_sequence(broken, spoil)
    assert "checkpoint_corrupt" in seen
    for name, weight in loaded(whole, 3).items():
        assert torch.equal(weight, loaded(broken, 3)[name]), name


def test_joint_training_depends_on_the_data_of_every_task(sequence_of: Callable[..., SequencePlan]) -> None:
    first = sequence_of(methods=["joint"], stream={"max_train": 16, "first": 3})
    longer = sequence_of(methods=["joint"], stream={"max_train": 16, "first": 4})
    other = sequence_of(methods=["joint"], stream={"max_train": 17, "first": 3})
    assert len({first.keys[-1], longer.keys[-1], other.keys[-1]}) == 3
    assert first.keys[1] == first.keys[2] == longer.keys[3], "the untrained state is one"
    assert first.keys[0] == sequence_of(methods=["ft"], **FEW).keys[0]


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_an_expert_is_fine_tuning_on_its_task_alone(model: str, tmp_path: Path) -> None:
    sequences = plan(small_config(tmp_path, model=model, methods=["expert"], **FEW))
    assert len(sequences) == 3
    views = [run_sequence(s) for s in sequences]
    names = [s.tasks for s in sequences]
    assert [len(n) for n in names] == [1, 1, 1]
    whole = plan(small_config(tmp_path / "ft", model=model, **FEW))[0]
    run_sequence(whole)
    assert sequences[0].keys[1] == whole.keys[1], "the first task is the same work, and done once"
    alone = plan(small_config(tmp_path / "alone", model=model, stream={"max_train": 16, "only": names[1][0]}))[0]
    run_sequence(alone)
    for name, weight in loaded(sequences[1], 1).items():
        assert torch.equal(weight, loaded(alone, 1)[name])
    assert all(view.matrix().shape == (2, 1) for view in views)


def result_of(tmp_path: Path, methods: list[Any], run: bool = True) -> tuple[dict[str, Any], list[View]]:
    config = small_config(tmp_path, model="tiny-bert", methods=methods, **FEW)
    sequences = plan(config)
    views = [run_sequence(s) for s in sequences] if run else []
    experiment = Experiment(config, tuple(sequences))
    experiment.save()
    return results(experiment), views


def test_reference_runs_stand_in_the_table_of_the_methods(tmp_path: Path) -> None:
    result, views = result_of(tmp_path, ["zero-shot", "expert", "ft", "joint"])
    zero, experts, plain, joint = views[0], views[1:4], views[4], views[5]
    rows = {s["method"]: s for s in result["sequences"]}
    assert list(rows) == ["zero-shot", "expert", "ft", "joint"]
    own = [view.matrix()[1, 0] for view in experts]
    assert rows["expert"]["aa"] == pytest.approx(np.mean(own))
    assert np.diag(np.array(rows["expert"]["accuracy_matrix"], dtype=float)[1:]).tolist() == own
    assert rows["expert"]["tasks"] == rows["ft"]["tasks"]
    assert rows["expert"]["seconds"] == pytest.approx(sum(view.seconds for view in experts), abs=0.02)
    assert rows["zero-shot"]["aa"] == pytest.approx(zero.matrix()[0].mean())
    assert rows["joint"]["aa"] == pytest.approx(joint.matrix()[-1].mean())
    for reference in ("zero-shot", "expert", "joint"):
        assert rows[reference]["bwt"] is rows[reference]["forgetting"] is rows[reference]["learning_accuracy"] is None
    assert rows["ft"]["bwt"] == pytest.approx(summary(plain.matrix(), plain.test_sizes())["bwt"])

    console = Console(record=True, width=110)
    print_report(result, console)
    text = console.export_text()
    assert text.index("ft ") < text.index("zero-shot ") < text.index("joint ")
    assert "each task trained alone" in text
    json.dumps(result)


def test_an_expert_that_was_not_run_leaves_the_entry_open(tmp_path: Path) -> None:
    result, _ = result_of(tmp_path, ["expert"], run=False)
    (entry,) = result["sequences"]
    assert entry["aa"] is None
    assert entry["status"] == "waiting"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            {"tuning": "full", "reference": "joint", "plugins": ["migu"]},
            "'migu': the reference run 'joint' trains no sequence",
        ),
        ({"tuning": "inclora", "reference": "joint"}, "each task trains weights of its own"),
        ({"tuning": "nmc", "reference": "expert"}, "needs a tuning method that trains"),
        ({"tuning": "full", "reference": "experts"}, "unknown reference run 'experts'. Did you mean 'expert'"),
        ({"tuning": "l2p", "reference": "zero-shot"}, "the untrained model, to which 'l2p' adds nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(method: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        method_spec(method)


def test_a_reference_run_keeps_its_tuning_method_in_its_name() -> None:
    assert MethodEntry.model_validate({"tuning": "lora", "reference": "joint"}).label == "lora (joint)"


def test_a_task_that_is_not_in_the_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"unknown task 'nothing'.*Known:"):
        plan(small_config(tmp_path, stream={"only": "nothing"}))


def test_joint_training_has_the_budget_of_all_tasks(sequence_of: Callable[..., SequencePlan]) -> None:
    budget = {"training": {"budget": {"steps": 2}}}
    joint, plain = (sequence_of(methods=[m], **FEW, **budget) for m in ("joint", "ft"))
    steps = [sum(len(task.steps) for task in run_sequence(s).by_task.values()) for s in (joint, plain)]
    assert steps == [6, 6]


def test_joint_training_knows_no_tasks_and_so_no_exceptions_for_one(tmp_path: Path) -> None:
    (name,) = plan(small_config(tmp_path, stream={"first": 1}))[0].tasks
    training = {"epochs": 2, "epochs_per_task": {name: 5}}
    joint, plain = plan(small_config(tmp_path, methods=["joint", "ft"], stream={"first": 2}, training=training))
    assert joint.training.epochs_per_task == {}
    assert plain.training.epochs_per_task == {name: 5}


ROOT = Path(__file__).parent.parent.parent
# where the names may stand: the objects themselves, and the presets that are made of them
KNOW_THE_NAMES = {"methods/reference_runs.py", "methods/presets.py"}


def named_reference_runs(code: str) -> list[str]:
    """The names of reference runs that stand as strings in a piece of code."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and node.value in REFERENCE_RUNS:
            found.append(str(node.value))
    return found


@pytest.mark.parametrize("package", ["methods", "streams", "orchestrator"])
def test_nobody_else_knows_a_reference_run_by_its_name(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in KNOW_THE_NAMES:
            assert not named_reference_runs(path.read_text()), name


def test_a_comparison_with_a_name_would_be_seen() -> None:
    assert named_reference_runs("if method.reference == 'joint':\n    pass") == ["joint"]
    assert named_reference_runs("return entry['reference'] in ('zero-shot', 'expert')") == ["zero-shot", "expert"]


def test_what_each_kind_of_run_trains_in_a_stream_of_three_tasks() -> None:
    trained = {}
    for name in (None, *REFERENCE_RUNS):
        kind = run_kind(name)
        trained[name] = [list(kind.tasks_to_train(task_id, 3)) for task_id in range(3)]
    assert trained[None] == [[0], [1], [2]]
    assert trained["zero-shot"] == [[], [], []]
    assert trained["expert"] == [[0], [1], [2]]
    assert trained["joint"] == [[], [], [0, 1, 2]]
    assert [run_kind("joint").is_trained(task_id, 3) for task_id in range(3)] == [False, False, True]


def test_joint_training_is_the_first_and_only_task_of_its_run() -> None:
    joint, sequence = run_kind("joint"), run_kind(None)
    assert (joint.task_position(2), joint.schedule_horizon(3)) == (0, 1)
    assert (sequence.task_position(2), sequence.schedule_horizon(3)) == (2, 3)
    assert (joint.turn("news"), sequence.turn("news")) == ("joint training", "task 'news'")
