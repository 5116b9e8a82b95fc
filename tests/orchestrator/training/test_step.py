"""The arithmetic of a step: its loss, and the random numbers that it draws."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.records.event import Event
from orchestrator.training import task as task_module
from orchestrator.training.batches import global_batches
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.step import train_step
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.steps import losses_of


def test_a_loss_is_the_mean_over_the_answer_tokens_of_the_global_batch(learner_of: Callable[..., Learner]) -> None:
    steps = {}
    for micro in (None, 4, 2, 1):
        learner = learner_of(training={"micro_batch": micro})
        events: list[Event] = []
        train_task(learner, 0, events.append)
        steps[micro] = [e.loss for e in events]
    learner = learner_of()
    features = learner.features(0)

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
            run_sequence(sequence, evaluate=False)
            losses.append(losses_of(sequence.out, sequence.id))
    finally:
        torch.set_default_dtype(torch.float32)
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[2] == pytest.approx(losses[0], rel=1e-9)


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


class Waits(TorchDispatchMode):
    """Counts where a GPU would be waited for: a value is read, or an index depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = False
        if name in ("index", "index_put", "index_put_"):
            by_mask = any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2"):
            # the last line that is neither torch's own nor this one
            frames = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename]
            # transformers asks of each mask whether it hides anything
            if not frames[-1].filename.endswith("transformers/masking_utils.py"):
                self.places.append(f"{name} in {frames[-1].filename}:{frames[-1].lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("method", ["ft", "ft+migu", "ft+random", "lora+migu", "ewc+migu", "olora", "replay"])
@pytest.mark.parametrize("micro", [None, 4])
def test_a_gpu_is_waited_for_once_a_step(
    micro: int | None, method: str, model: str, learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(model=model, methods=[method], training={"micro_batch": micro}, stream={"max_train": 8})
    train_task(learner, 0, lambda event: None)
    listed = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor, own=torch.Tensor.tolist: listed.append(1) or own(tensor))
    waits = Waits()

    def step(*arguments: Any) -> Any:
        listed.clear()
        with waits:
            result = train_step(*arguments)
        assert len(listed) == 1
        return result

    monkeypatch.setattr(task_module, "train_step", step)
    train_task(learner, 1, lambda event: None)
    assert waits.places == []
