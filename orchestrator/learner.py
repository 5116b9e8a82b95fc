"""The model and the method of one sequence, as one worker holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from methods import Batch, Context, Stack
from orchestrator.checkpoint import State
from orchestrator.families import Family, Feature, load_family
from orchestrator.models import find_model
from orchestrator.plan import Sequence
from orchestrator.workers import Workers
from streams import Stream


class Learner:
    """Builds the model on first use, so that a sequence with nothing left to do never loads one.

    `row` says which state it holds: 0 before training, t after task t, None nothing yet or nothing whole.
    """

    def __init__(self, sequence: Sequence, stream: Stream, workers: Workers) -> None:
        self.sequence, self.stream, self.workers = sequence, stream, workers
        self.row: int | None = None
        self._training: tuple[int | None, list[Feature]] = (None, [])  # of one task, asked for more than once

    @cached_property
    def family(self) -> Family:
        """The model before training, prepared by the tuning regime, on this worker's device."""
        source = find_model(self.sequence.model)
        if source.identity != self.sequence.model_identity:
            raise ValueError(
                f"model {self.sequence.model.name!r} has changed: {source.identity} on this machine, but the "
                f"experiment was planned with {self.sequence.model_identity}"
            )
        labels = self.stream.labels_until(len(self.stream.tasks))
        family = load_family(source, self.sequence.model, labels, self.sequence.seed)
        torch.manual_seed(self.sequence.seed)
        family.module = self.stack.prepare(family.module, family.head()).to(self.workers.device)
        self.row = 0
        return family

    @cached_property
    def stack(self) -> Stack:
        """The method, with its memory."""
        return self.sequence.method.spec.build(
            Context(self.sequence.seed, self.workers.mean, self.forward, self.workers.from_first)
        )

    def forward(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss, logits) in the sequence's precision; `model` is the family's, wrapped or with other weights."""
        with self.precision():
            return self.family.forward(model, batch)

    def features(self, task_id: int) -> list[Feature]:
        """The train split of a task as token ids."""
        task = self.stream.tasks[task_id]
        return self.family.features(task, task.read("train"))

    def training_set(self, task_id: int) -> list[Feature]:
        """What a task is trained on: its own examples, unless the method changes that."""
        if self._training[0] != task_id:
            chosen = self.stack.training_set(task_id, self.features(task_id), self.features)
            self._training = (task_id, [dict(feature) for feature in chosen])
        return self._training[1]

    def precision(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the sequence asks for it."""
        if self.sequence.model.precision == "bf16":
            return torch.autocast(self.workers.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def take(self, state: State, row: int) -> None:
        """Go on from a saved state."""
        self.stack.grow(self.family.module, row)
        self.family.load_weights(state.weights)
        self.stack.load_state_dict(dict(state.method))
        self.row = row

    def give(self, history: Mapping[str, Any]) -> State:
        """The present state, to be saved."""
        return State(self.weights(), self.stack.state_dict(), history)

    def weights(self) -> dict[str, Tensor]:
        """What the method has trained, by name."""
        return self.stack.weights(self.family.module)
