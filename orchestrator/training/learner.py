"""The model and the method of one sequence, as one worker holds them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from methods import Batch, Context, Stack
from orchestrator.evaluation.scores import ScoredModel
from orchestrator.models.families import load_family
from orchestrator.models.family import Family, Feature
from orchestrator.models.source import find_model
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import ResumeState, State
from orchestrator.training.batches import global_batches, micro_batches
from orchestrator.training.parallel import Parallel
from streams import Stream


class Learner:
    """Builds the model on first use, so that a sequence with nothing left to do never loads one.

    `row` says which state it holds: 0 before training, t after task t, None nothing yet or nothing whole. Where each task
    is annealed there are two states after a task; `trunk` says that it holds the one to go on from, with `moments`, the
    optimizer's state by parameter.
    """

    def __init__(self, sequence: SequencePlan, stream: Stream, parallel: Parallel) -> None:
        self.sequence, self.stream, self.parallel = sequence, stream, parallel
        self.row: int | None = None
        self.resume_state = False
        self.optimizer_state: Mapping[str, Mapping[str, Tensor]] = {}
        self.decayed: dict[str, Tensor] | None = None  # after training, beside the trunk that the model holds then
        self._training: tuple[int | None, list[Feature]] = (None, [])  # of one task, asked for more than once
        self._examples: dict[int, list[Feature]] = {}

    @cached_property
    def family(self) -> Family:
        """The model before training, prepared by the tuning method, on this worker's device."""
        source = find_model(self.sequence.model)
        if source.identity != self.sequence.model_identity:
            raise ValueError(
                f"model {self.sequence.model.name!r} has changed: {source.identity} on this machine, but the "
                f"experiment was planned with {self.sequence.model_identity}"
            )
        labels = self.stream.labels_until(len(self.stream.tasks))
        family = load_family(source, self.sequence.model, labels, self.sequence.seed)
        torch.manual_seed(self.sequence.seed)
        family.module = self.stack.prepare(family.module, family.head()).to(self.parallel.device)
        self.row = 0
        return family

    def begin(self) -> None:
        """Hold the state before training, whatever was held."""
        self.__dict__.pop("family", None)
        self.__dict__.pop("stack", None)
        self.optimizer_state, self.decayed = {}, None
        _ = self.family

    def holds(self, row: int, to_train: bool) -> bool:
        """Whether it holds that state: for training on, or for scoring."""
        one_state = row == 0 or self.sequence.training.schedule != "infinite"
        return self.row == row and (one_state or self.resume_state == to_train)

    @cached_property
    def stack(self) -> Stack:
        """The method, with its memory."""
        context = Context(
            self.sequence.seed,
            self.parallel.mean,
            self.forward,
            self.parallel.from_first,
            embed=self.embed,
            examples=self.examples,
            batches=self.batches,
            labels=[len(self.stream.labels_until(t + 1)) for t in range(len(self.stream.tasks))],
            workers=self.parallel.count,
            shared_weights=not self.sequence.method.spec.types[0].card.per_task_weights,
        )
        return self.sequence.method.spec.build(context)

    def forward(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss, logits) in the sequence's precision; `model` is the family's, wrapped or with other weights."""
        with self.precision():
            return self.family.forward(model, batch)

    def embed(self, batch: Batch) -> Tensor:
        """[B, d]: the unit-length mean of each text's last hidden states, in the sequence's precision."""
        with self.precision():
            return self.family.embed(batch)

    def features(self, task_id: int) -> list[Feature]:
        """The train split of a task as token ids."""
        task = self.stream.tasks[task_id]
        return self.family.features(task, task.read("train"))

    def examples(self, task_id: int) -> list[Feature]:
        """As `features`, kept: methods ask for old tasks again and again."""
        if task_id not in self._examples:
            self._examples[task_id] = self.features(task_id)
        return self._examples[task_id]

    def batches(self, examples: Sequence[Feature], rng: torch.Generator | None = None) -> Iterator[Batch]:
        """This worker's micro-batches of examples, on its device; in a random order where `rng` is given.

        The cut is training's, so the number of workers changes none of them. `example_indices` are counted in that order.
        """
        training, parallel, family = self.sequence.training, self.parallel, self.family
        size = training.micro_batch or training.global_batch // parallel.count
        units = sum(family.loss_terms(f) for f in examples)
        order = torch.randperm(len(examples), generator=rng).tolist() if rng else range(len(examples))
        for place, chosen in micro_batches(order, size, parallel.rank, parallel.count):
            features = [examples[i] for i in chosen]
            share = sum(family.loss_terms(f) for f in features) / units
            batch = family.collate(features).to(parallel.device)
            yield batch.replace(
                example_indices=list(range(place * size, place * size + len(chosen))),
                loss_weight=share,
                loss_denominator=units,
                num_old_classes=family.num_old_classes,
            )

    def place(self, task_id: int) -> int:
        """Which task of its sequence a task is to the method."""
        return self.sequence.method.run_kind.task_position(task_id)

    def training_set(self, task_id: int) -> list[Feature]:
        """What a task is trained on: its own examples, unless the method changes that."""
        if self._training[0] != task_id:
            place = self.place(task_id)
            tasks = self.sequence.method.run_kind.tasks_to_train(task_id, len(self.sequence.tasks))
            own = [f for t in tasks for f in self.features(t)]
            chosen = self.stack.training_set(place, own, self.examples)
            self._training = (task_id, cast("list[Feature]", [dict(feature) for feature in chosen]))
        return self._training[1]

    def global_batches(self, task_id: int) -> Iterator[list[Feature]]:
        """The global batch of each step of a task, epoch after epoch without end."""
        features, sequence, place = self.training_set(task_id), self.sequence, self.place(task_id)
        fresh = self.stack.num_new_examples(place, sequence.training.global_batch)
        indices = (
            chosen
            for epoch in itertools.count()
            for chosen in global_batches(len(features), fresh, sequence.seed, place, epoch)
        )
        for step, chosen in enumerate(indices, start=1):
            composed = self.stack.compose_batch(place, step, [features[i] for i in chosen])
            yield cast("list[Feature]", list(composed))

    def precision(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the sequence asks for it."""
        if self.sequence.model.precision == "bf16":
            return torch.autocast(self.parallel.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def scored_model(self) -> ScoredModel:
        """The present state, as scoring takes it."""
        return ScoredModel(self.family, self.stack, self.parallel.device, self.precision)

    def load_state(self, state: State, row: int) -> None:
        """Go on from a saved state; from its trunk, if it comes with one."""
        self.stack.grow(self.family.module, self.place(row - 1) + 1 if row else 0)
        self.family.load_weights(state.weights if state.resume_state is None else state.resume_state.weights)
        self.stack.load_state_dict(dict(state.method))
        self.optimizer_state = {} if state.resume_state is None else state.resume_state.optimizer_state
        self.row, self.resume_state, self.decayed = row, state.resume_state is not None, None

    def to_state(self, history: Mapping[str, Any]) -> State:
        """The present state, to be saved."""
        weights = self.parallel.full_state(self.weights())
        method = self.parallel.full_state(self.stack.state_dict())
        if self.decayed is None:
            return State(weights, method, history)
        optimizer_state = self.parallel.full_state(self.optimizer_state)
        return State(self.parallel.full_state(self.decayed), method, history, ResumeState(weights, optimizer_state))

    def weights(self) -> dict[str, Tensor]:
        """What the method has trained, by name."""
        return self.stack.weights(self.family.module)
