"""One sequence in one process: nothing trained twice, nothing lost, and the arithmetic of a step."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.errors import NonFiniteLoss, SequenceFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved, Event
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import read_view
from orchestrator.training.learner import Learner
from orchestrator.training.schedules import make_schedule
from orchestrator.training.sequence import is_complete, run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


def trained(sequence: SequencePlan) -> list[str]:
    """Run a sequence; the tasks that were really trained, not found."""
    done: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and not event.reused:
            done.append(event.task)

    run_sequence(sequence, report)
    return done


@pytest.mark.parametrize("model", [*FAMILIES, "tiny-roberta"])
def test_a_whole_sequence(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    view = run_sequence(sequence_of(model=model))
    full = view.matrix()
    assert full.shape == (6, 5)
    assert not np.isnan(full).any()
    assert view.status == "finished"
    options = view.matrix("score_options")
    if model in ("tiny-bert", "tiny-roberta"):
        assert (options >= full).all(), "fewer labels compete, so no score can be lower"
    else:
        assert np.isnan(options).all()


def test_the_same_command_again_trains_and_scores_nothing(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of()
    assert len(trained(sequence)) == 5
    assert is_complete(sequence, Store(Path(sequence.out)))
    before = list(Tail(journal_folder(sequence.out, sequence.id)).new_events())
    assert trained(sequence) == []
    after = list(Tail(journal_folder(sequence.out, sequence.id)).new_events())
    assert [e.name for e in after[len(before) :]] == ["sequence_started", "sequence_finished"]


def folder_with(tmp_path: Path, names: list[str]) -> dict[str, Any]:
    """A stream of small tasks with labels of their own."""
    import json

    for i, name in enumerate(("first", "second", "third")):
        path = tmp_path / "data" / "TC" / name
        if not path.exists():
            path.mkdir(parents=True)
            labels = [f"{name}-a", f"{name}-b"]
            rows = [{"label": labels[r % 2], "sentence": f"{name} text {r} {i}"} for r in range(20)]
            for split, content in (("train", rows), ("test", rows[:6]), ("labels", labels)):
                (path / f"{split}.json").write_text(json.dumps(content))
    return {"name": "own", "folder": str(tmp_path / "data"), "tasks": names}


@pytest.mark.parametrize("model", FAMILIES)
def test_adding_a_task_trains_only_that_task(
    model: str, sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    short = sequence_of(model=model, stream=folder_with(tmp_path, ["first", "second"]))
    longer = sequence_of(model=model, stream=folder_with(tmp_path, ["first", "second", "third"]))
    at_once = sequence_of("elsewhere", model=model, stream=folder_with(tmp_path, ["first", "second", "third"]))
    assert trained(short) == ["first", "second"]
    assert trained(longer) == ["third"]
    assert trained(at_once) == ["first", "second", "third"]
    ends = [Store(Path(s.out)).load(s.keys[3]).weights for s in (longer, at_once)]
    for name, w in ends[0].items():
        torch.testing.assert_close(w, ends[1][name], rtol=1e-6, atol=1e-7)


def test_methods_share_the_tasks_that_they_train_alike(sequence_of: Callable[..., SequencePlan]) -> None:
    plain, migu, other = (sequence_of(methods=[m]) for m in ("ft", "ft+migu", {"tuning": "full", "plugins": [
        {"name": "migu", "ratio": 0.5}]}))  # fmt: skip
    masked_first = sequence_of(methods=[{"tuning": "full", "plugins": [{"name": "migu", "mask_first_task": True}]}])
    assert plain.keys[:2] == migu.keys[:2] == other.keys[:2]
    assert len({s.keys[2] for s in (plain, migu, other)}) == 3
    assert masked_first.keys[1] != plain.keys[1]
    assert trained(plain) == ["reviews", "headlines", "requests", "feelings", "riddles"]
    assert trained(migu) == ["headlines", "requests", "feelings", "riddles"]
    reused = read_view(migu.out, migu.id).by_task[0]
    assert len(reused.steps) == 3, "the log of the shared task is there too"


def test_what_may_have_influenced_the_weights_is_in_the_key(sequence_of: Callable[..., SequencePlan]) -> None:
    base = sequence_of()
    same = [sequence_of(training={"micro_batch": 4}), sequence_of(scaling={"workers": 2}), sequence_of("elsewhere")]
    assert all(s.keys == base.keys for s in same)
    changes: list[dict[str, Any]] = [
        {"training": {"lr": 2e-3}},
        {"training": {"epochs": 2}},
        {"training": {"global_batch": 4}},
        {"training": {"weight_decay": 0.0}},
        {"training": {"schedule": "linear"}},
        {"seeds": [8]},
        {"model": "tiny-llama"},
        {"stream": {"max_train": 16}},
        {"methods": ["lora"]},
    ]
    keys = [sequence_of(**c).keys for c in changes]
    assert len({base.keys[1], *(k[1] for k in keys)}) == len(changes) + 1
    later = sequence_of(training={"epochs_per_task": {"requests": 2}}).keys
    assert later[:3] == base.keys[:3]
    assert later[3] != base.keys[3]


def test_a_non_finite_loss_stops_the_sequence_and_keeps_what_was_done(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(training={"lr": 1e-3})
    wild = sequence_of(methods=[{"tuning": "full", "training": {"lr": 1e20, "clip": None}}])
    with pytest.raises(NonFiniteLoss, match=r"the (loss|gradient's norm) is (nan|inf) in task 'reviews', step \d"):
        run_sequence(wild)
    view = read_view(wild.out, wild.id)
    assert view.status == "failed"
    assert "task 'reviews', step" in view.failure
    assert (0, 4) in view.scores
    assert not any(Store(Path(wild.out)).has(key) for key in wild.keys[1:])
    assert len(trained(sequence)) == 5


def test_any_error_of_a_sequence_is_noted_with_its_reason(sequence_of: Callable[..., SequencePlan]) -> None:
    """Nothing below the config can know that a LoRA's target is not in the model."""
    sequence = sequence_of(methods=[{"tuning": {"name": "lora", "targets": ["no_such_layer"]}}])
    with pytest.raises(SequenceFailed, match="no_such_layer"):
        run_sequence(sequence)
    view = read_view(sequence.out, sequence.id)
    assert view.status == "failed"
    assert "no_such_layer" in view.failure


def test_data_that_changed_since_the_plan_is_refused(sequence_of: Callable[..., SequencePlan], tmp_path: Path) -> None:
    """Otherwise what is trained on the new data would be stored, and found again, as if it were of the old."""
    sequence = sequence_of(stream=folder_with(tmp_path, ["first", "second"]))
    file = tmp_path / "data" / "TC" / "first" / "train.json"
    file.write_text(file.read_text().replace("first text 3", "another text"))
    with pytest.raises(SequenceFailed, match="has changed since"):
        run_sequence(sequence)
    assert not Store(Path(sequence.out)).has(sequence.keys[1])


def test_weights_that_are_not_finite_are_never_stored(sequence_of: Callable[..., SequencePlan]) -> None:
    """One step a task: the loss is taken before the step that spoils the weights."""
    wild = {"tuning": "full", "training": {"lr": 1e38, "clip": None, "global_batch": 24, "weight_decay": 10.0}}
    sequence = sequence_of(methods=[wild])
    with pytest.raises(NonFiniteLoss, match=r"(in|after) task '(reviews|headlines)'"):
        run_sequence(sequence, evaluate=False)
    store = Store(Path(sequence.out))
    for key in sequence.keys[1:]:
        assert not store.has(key) or all(torch.isfinite(w).all() for w in store.load(key).weights.values())


def test_a_stream_without_a_dev_split_trains(sequence_of: Callable[..., SequencePlan]) -> None:
    view = run_sequence(sequence_of(stream={"dev_fraction": 0}), evaluate=False)
    assert view.status == "incomplete", "trained, and not scored"
    assert view.start
    assert view.start.data[0]["sizes"]["dev"] == 0


def test_bf16_runs(sequence_of: Callable[..., SequencePlan]) -> None:
    low = sequence_of(methods=["lora+migu"], precision="bf16")
    assert low.keys[0] != sequence_of(methods=["lora+migu"]).keys[0]
    view = run_sequence(low)
    assert view.status == "finished"
    assert not np.isnan(view.matrix()).any()


def test_the_option_texts_count_once_whatever_the_micro_batch(sequence_of: Callable[..., SequencePlan]) -> None:
    """A sentence encoder reads the labels with every micro-batch; MIGU's choice must not depend on how many there are."""
    torch.set_default_dtype(torch.float64)
    try:
        losses = []
        for micro in (None, 4, 2):
            migu = {"tuning": "full", "plugins": [{"name": "migu", "mask_first_task": True}]}
            sequence = sequence_of(
                f"m{micro}", model="tiny-bert", methods=[migu], training={"micro_batch": micro}, scoring="similarity"
            )
            view = run_sequence(sequence, evaluate=False)
            losses.append([s.loss for task in view.by_task.values() for s in task.steps.values()])
    finally:
        torch.set_default_dtype(torch.float32)
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[2] == pytest.approx(losses[0], rel=1e-9)


def test_a_corrupt_checkpoint_is_set_aside_and_made_again(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of()
    trained(sequence)
    store = Store(Path(sequence.out))
    before = store.load(sequence.keys[5]).weights
    shutil.rmtree(store.path(sequence.keys[5]))
    (store.path(sequence.keys[4]) / "weights.safetensors").write_bytes(b"broken")
    events: list[Event] = []
    run_sequence(sequence, events.append)
    assert "checkpoint_corrupt" in [e.name for e in events]
    after = store.load(sequence.keys[5]).weights
    assert all(torch.equal(w, after[n]) for n, w in before.items())
    assert store.is_sound(sequence.keys[4])
    assert [p for p in (store.root / "checkpoints").iterdir() if "corrupt" in p.name]


def test_a_loss_is_the_mean_over_the_answer_tokens_of_the_global_batch(learner_of: Callable[..., Learner]) -> None:
    steps = {}
    for micro in (None, 4, 2, 1):
        learner = learner_of(training={"micro_batch": micro})
        events: list[Event] = []
        train_task(learner, 0, events.append)
        steps[micro] = [e.loss for e in events]
    learner = learner_of()
    features = learner.features(0)
    from orchestrator.training.batches import global_batches

    chosen = [features[i] for i in next(global_batches(len(features), 8, 7, 0, 0))]
    batch = learner.family.collate(chosen)
    labels = batch.labels
    with torch.no_grad():
        logits = learner.family.module(
            input_ids=batch.source.ids, attention_mask=batch.source.mask, labels=labels
        ).logits
    total, count = 0.0, 0
    for b in range(len(labels)):
        for t in range(labels.shape[1]):
            if labels[b, t] != -100:
                total -= torch.log_softmax(logits[b, t].double(), 0)[labels[b, t]].item()
                count += 1
    assert steps[None][0] == pytest.approx(total / count, rel=1e-6)
    for micro in (4, 2, 1):
        assert steps[micro] == pytest.approx(steps[None], rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("constant", 0.5, [1 / 3, 2 / 3, 1, 1]),
        ("linear", 0.5, [1 / 3, 2 / 3, 1, 0.5]),
        ("cosine", 0.0, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_schedules(
    schedule: str, warmup: float, expected: list[float], sequence_of: Callable[..., SequencePlan]
) -> None:
    training = sequence_of(training={"schedule": schedule, "warmup": warmup, "lr": 0.5}).training
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=training.lr)
    scheduler = make_schedule(optimizer, training, steps=4)
    rates = []
    for _ in range(4):
        rates.append(scheduler.get_last_lr()[0] / 0.5)
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected)


def test_dropout_depends_on_the_place_and_not_on_what_was_drawn_before(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    """Two runs of one sequence with dropout are equal, also when the second stops in between and draws other numbers."""
    ends = []
    for out in ("a", "b"):
        sequence = sequence_of(out, overrides={"dropout_rate": 0.3})
        draw = 3 if out == "b" else 0
        run_sequence(sequence, lambda event, draw=draw: torch.rand(draw), evaluate=out == "b")  # type: ignore[misc]
        ends.append(Store(Path(sequence.out)).load(sequence.keys[5]).weights)
    assert all(torch.equal(w, ends[1][n]) for n, w in ends[0].items())
    first = sequence_of("first")
    run_sequence(first)
    plain = Store(Path(first.out)).load(first.keys[5]).weights
    assert any(not torch.equal(w, ends[0][n]) for n, w in plain.items()), "dropout did nothing"
    assert math.isfinite(sum(float(w.sum()) for w in plain.values()))
