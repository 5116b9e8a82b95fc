"""Scores of corpora by end tasks: a copy of the state is fine-tuned, and the state stays what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.evaluation.scores import ScoredModel
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.predictions import load_predictions
from orchestrator.training import scoring
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.scoring import fine_tuned
from orchestrator.training.sequence import run_sequence
from streams import Corpus, EndTask
from tests.conftest import small_config


def stream_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """Two corpora of few lines, each with an end task of two labels which single words tell apart."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for name in ("law", "news"):
        lines = [f"{name} text number {number} of a small corpus" for number in range(30)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
        for split, count in (("train", 32), ("test", 12)):
            rows = []
            for number in range(count):
                label = ["good", "bad"][number % 2]
                rows.append(json.dumps({"text": f"{name} {label} {split} {number}", "label": label}))
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(rows))
        files = {split: str(folder / f"{name}-{split}.jsonl") for split in ("train", "test")}
        end_task = {"epochs": 3, "batch": 8, "lr": 1e-2, **files, **settings}
        tasks.append({"name": name, "train": str(folder / f"{name}.txt"), "end_task": end_task})
    return {"name": "domains", "source": "corpus", "tasks": tasks, "max_train": None, "max_test": None}


@pytest.fixture
def sequence(tmp_path: Path) -> SequencePlan:
    (planned,) = plan(small_config(tmp_path / "out", model="tiny-roberta", stream=stream_of(tmp_path)))
    return planned


@pytest.fixture
def learner(sequence: SequencePlan) -> Learner:
    made = Learner(sequence, sequence.open_stream(), Parallel())
    made.load_initial()
    return made


def end_task_of(learner: Learner) -> EndTask:
    corpus = learner.stream.tasks[0]
    assert isinstance(corpus, Corpus) and corpus.end_task is not None
    return corpus.end_task


def weights_of(model: ScoredModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.family.module.named_parameters()}


def test_a_copy_begins_as_the_state_and_learns_and_the_state_stays(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        for weight in learner.family.module.parameters():
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.01
    before = weights_of(learner.scored_model())
    torch.manual_seed(5)
    expected_draw = torch.rand(3)
    torch.manual_seed(5)
    trained = weights_of(fine_tuned(learner, end_task_of(learner)))
    assert torch.equal(torch.rand(3), expected_draw), "what is drawn next is not the copy's affair"
    monkeypatch.setattr(scoring, "train_task", lambda *arguments: None)
    copy = fine_tuned(learner, end_task_of(learner))
    assert isinstance(copy.family, EncoderWithHead)
    assert copy.family.labels == ("bad", "good")
    untrained = weights_of(copy)
    shared = [name for name in before if name.startswith("roberta.")]
    assert len(shared) == len(before) - 5, "the head over the vocabulary has five tensors of its own"
    for name in shared:
        assert torch.equal(untrained[name], before[name])
        if not name.endswith("key.bias"):
            assert not torch.equal(trained[name], before[name])
    for name, weight in weights_of(learner.scored_model()).items():
        assert torch.equal(weight, before[name])


def test_it_is_a_function_of_state_task_and_seed(learner: Learner) -> None:
    end_task = end_task_of(learner)
    first = weights_of(fine_tuned(learner, end_task))
    torch.manual_seed(99)
    again = weights_of(fine_tuned(learner, end_task))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "roberta.encoder.layer.0.output.dense.weight"
    longer = weights_of(fine_tuned(learner, replace(end_task, epochs=4)))
    assert not torch.equal(longer[name], first[name])
    learner.sequence = learner.sequence.model_copy(update={"seed": 8})
    assert not torch.equal(weights_of(fine_tuned(learner, end_task))[name], first[name])


def test_the_rate_falls_to_nothing_in_batches_of_the_end_task(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    train = scoring.train_task

    def noted(copy: Learner, task_id: int, report: Any) -> Any:
        assert copy.sequence.training.weight_decay == 0.01
        return train(copy, task_id, steps.append)

    monkeypatch.setattr(scoring, "train_task", noted)
    fine_tuned(learner, end_task_of(learner))
    # 29 rows (three of 32 are held out for dev) make four batches of eight; three epochs
    rates = [step.lr for step in steps]
    assert rates == pytest.approx([1e-2 * (12 - step) / 12 for step in range(12)])


def test_a_sequence_is_scored_by_macro_f1_of_its_copies(tmp_path: Path) -> None:
    stream = {**stream_of(tmp_path, epochs=12), "first": 1}
    (sequence,) = plan(small_config(tmp_path / "out", model="tiny-roberta", stream=stream))
    matrix = run_sequence(sequence).matrix()
    assert sequence.scorers == ("macro-f1",)
    store = Store(Path(sequence.out))
    for tasks_seen, keys in enumerate(sequence.score_keys):
        for task_id, key in enumerate(keys):
            predictions = load_predictions(store.root, key)
            assert predictions is not None and len(predictions) == 12
            f1s = []
            for label in ("good", "bad"):
                right = sum(p.target == p.prediction == label for p in predictions)
                named = sum(p.prediction == label for p in predictions) + sum(p.target == label for p in predictions)
                f1s.append(2 * right / named)
            assert matrix[tasks_seen, task_id] == pytest.approx(100 * sum(f1s) / 2)
            record = store.load_score(key)
            # accuracy is not lost: how many are right stands beside the score
            assert record is not None and record["correct"] == sum(p.correct for p in predictions)
    # words tell the labels apart; one label for all would be 33
    assert matrix.min() > 60


def test_states_are_named_without_their_end_tasks(sequence: SequencePlan, tmp_path: Path) -> None:
    (other,) = plan(small_config(tmp_path / "out", model="tiny-roberta", stream=stream_of(tmp_path, lr=2e-2)))
    assert other.keys == sequence.keys
    for keys, other_keys in zip(sequence.score_keys, other.score_keys, strict=True):
        assert not set(keys) & set(other_keys)
    file = tmp_path / "law-test.jsonl"
    file.write_text(file.read_text().replace("test 3", "test three"))
    (other,) = plan(small_config(tmp_path / "out", model="tiny-roberta", stream=stream_of_file(tmp_path)))
    assert other.keys == sequence.keys
    assert other.score_keys[0][0] != sequence.score_keys[0][0]
    assert other.score_keys[0][1] == sequence.score_keys[0][1]


def stream_of_file(folder: Path) -> dict[str, Any]:
    """The stream of files that are there, whatever is in them."""
    contents = {file: file.read_text() for file in folder.glob("*-test.jsonl")}
    stream = stream_of(folder)
    for file, content in contents.items():
        file.write_text(content)
    return stream


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": ["lora"]},
            "has an end task, for which a copy of the model's own weights is fine-tuned, and method 'lora'",
        ),
        ({"scorer": "perplexity"}, "task 'law' is scored by its end task; allowed: accuracy, macro-f1"),
        ({"labels": ["good"]}, "task 'law': end_task: 1 labels: there is nothing to tell apart"),
    ],
)
def test_what_an_end_task_does_not_go_with_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    settings = {key: changes[key] for key in changes if key == "labels"}
    stream = {**stream_of(tmp_path, **settings), **{key: changes[key] for key in changes if key == "scorer"}}
    with pytest.raises(UserError) as caught:
        plan(small_config(tmp_path, model="tiny-roberta", stream=stream, methods=changes.get("methods", ["ft"])))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_in_parts_is_not_copied(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parallel, "holds_parts", True)
    with pytest.raises(ValueError, match=r"^end_task: a copy of the whole model .* scaling\.strategy: ddp$"):
        fine_tuned(learner, end_task_of(learner))


def test_a_decoder_learns_to_write_the_labels(tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-llama", stream=stream_of(tmp_path, epochs=1))
    copy = fine_tuned(learner, end_task_of(learner))
    assert copy.family.generates
    assert not torch.equal(weights_of(copy)["lm_head.weight"], weights_of(learner.scored_model())["lm_head.weight"])
