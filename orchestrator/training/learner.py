"""The model and the method of one sequence, as one worker holds them."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from methods import Batch, Context, Stack
from orchestrator.evaluation.scores import ScoredModel
from orchestrator.models.blocks import checkpoint_activations, compile_blocks, shrink_frozen
from orchestrator.models.families import load_family
from orchestrator.models.family import Family, Feature
from orchestrator.models.source import ModelSource, find_model
from orchestrator.models.weights.other_models import weights_of
from orchestrator.models.weights.saved_parts import saved_parts_of
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State
from orchestrator.training.batches import MicroBatch, cut_by_length, global_batches, micro_batches
from orchestrator.training.learner_state import BOTH, INITIAL, NOTHING_WHOLE, LearnerState, Purpose
from orchestrator.training.parallel import Parallel
from streams import Stream


class Learner:
    """A model with its method and its data. `state` says what model and method hold.

    It begins with nothing: `load_initial` or `load` builds the model, so that a sequence with nothing left to do never does.
    """

    state: LearnerState
    # Both are there from the first load on
    family: Family
    stack: Stack
    # The steps of the task that is trained, which are known once its data are
    num_steps: int

    def __init__(self, sequence: SequencePlan, stream: Stream, parallel: Parallel) -> None:
        self.sequence = sequence
        self.stream = stream
        self.parallel = parallel
        self.micro_batch = MicroBatch(sequence, parallel)
        self._training_sets: dict[int, list[Feature]] = {}
        self._examples: dict[int, list[Feature]] = {}
        self.hold(NOTHING_WHOLE)

    def hold(self, state: LearnerState) -> None:
        """Say what model and method hold from now on. No other line assigns the state."""
        self.state = state

    # Loading

    def load_initial(self, source: ModelSource | None = None) -> None:
        """Build the model before training, prepared by the tuning method, on this worker's device, and the method.

        `source` is the plan's model where it was found already, perhaps without values.
        """
        self.hold(NOTHING_WHOLE)
        if source is None:
            source = find_model(self.sequence.model)
        if source.identity != self.sequence.model_identity:
            raise ValueError(
                f"model {self.sequence.model.name!r} has changed: {source.identity} on this machine, but the "
                f"experiment was planned with {self.sequence.model_identity}"
            )
        source = replace(source, in_parts=self.parallel.holds_parts)
        labels = self.stream.labels_until(len(self.stream.tasks))
        self.family = load_family(source, self.sequence.model, labels, self.sequence.seed)
        self.micro_batch.look_up()
        saved = saved_parts_of(self.family.module)
        # What the tuning method adds is drawn from the global generator, after whatever loading drew
        torch.manual_seed(self.sequence.seed)
        self.stack = self._build_method()
        prepared = self.stack.prepare(self.family.module, self.family.head())
        saved.note_names(prepared)
        shrink_frozen(prepared, self.sequence.model.base, has_values=not saved.by_name)
        half = torch.bfloat16 if self.sequence.model.precision == "bf16" else None
        self.family.module = self.parallel.place(prepared, self.family.head(), half)
        saved.fill(self.family.module)
        if self.sequence.training.checkpoint_activations:
            checkpoint_activations(self.family.module)
        if self.sequence.training.compile:
            compile_blocks(self.family.module)
        self.hold(INITIAL)

    def load(self, stored: State, tasks_seen: int) -> None:
        """Take over a stored state; its resume state, where it comes with one."""
        # Going back, from nothing whole too, begins anew: a method keeps what an earlier checkpoint does not know of
        if self.state.tasks_seen is None or self.state.tasks_seen > tasks_seen:
            self.load_initial()
        self.hold(NOTHING_WHOLE)
        num_begun = 0
        if tasks_seen > 0:
            num_begun = self.task_position(tasks_seen - 1) + 1
        # The structure comes first: weights of adapters that the model has not yet could not be loaded
        self.stack.grow(self.family.module, num_begun)
        resume_state = stored.resume_state
        weights = stored.weights if resume_state is None else resume_state.weights
        self._take_over(weights)
        self.stack.load_state_dict(dict(stored.method))
        if resume_state is not None:
            self.hold(LearnerState(tasks_seen, frozenset({"train"}), resume_state.optimizer_state))
            return
        serves: frozenset[Purpose] = BOTH
        has_two_states = self.sequence.training.schedule == "infinite" or self.stack.scores_other_weights
        if tasks_seen > 0 and has_two_states:
            serves = frozenset({"score"})
        self.hold(LearnerState(tasks_seen, serves))

    def weights(self) -> dict[str, Tensor]:
        """What the method has trained, by name: a checkpoint's weights, as this worker holds them."""
        return self.stack.weights(self.family.module)

    def stored_weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the weights, as this worker has them. In a form of the method's own, the model goes on
        from that.

        To be called once a task, on every worker.
        """
        weights = self.weights()
        form = self.stack.stored_form
        if form is None:
            return weights
        packed = form.packed(self.family.module, weights)
        # as from a file, so that the model holds what a later process will
        self._take_over(packed)
        return packed

    def _take_over(self, stored: Mapping[str, Tensor]) -> None:
        """Put stored weights into the model."""
        weights = stored
        form = self.stack.stored_form
        if form is not None:
            weights = form.unpacked(stored)
        self.family.load_weights(weights, self.parallel.write_rows)

    def _build_method(self) -> Stack:
        spec = self.sequence.method.spec
        num_labels = []
        for task_id in range(len(self.stream.tasks)):
            num_labels.append(len(self.stream.labels_until(task_id + 1)))
        context = Context(
            self.sequence.seed,
            self.parallel.mean,
            self.forward,
            self.parallel.from_first,
            embed=self.embed,
            examples=self.examples,
            batches=self.batches,
            labels=num_labels,
            label_units=self.family.label_units(),
            workers=self.parallel.dealt_among[1],
            own_exchange=self.parallel.own_exchange,
            gradients=lambda value, parameters: self.parallel.gradients(self.family.module, value, parameters),
            shared_weights=not spec.types[0].card.per_task_weights,
            num_steps=lambda: self.num_steps,
            model_weights=functools.partial(weights_of, self.sequence.model, self.family.labels, self.sequence.seed),
        )
        return spec.build(context)

    # Computing

    def precision(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the sequence asks for it."""
        if self.sequence.model.precision == "bf16":
            return torch.autocast(self.parallel.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def forward(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss, logits) in the sequence's precision; `model` is the family's, wrapped or with other weights."""
        with self.precision():
            return self.family.forward(model, batch)

    def embed(self, batch: Batch) -> Tensor:
        """[B, d]: the unit-length mean of each text's last hidden states, in the sequence's precision."""
        with self.precision():
            return self.family.embed(batch)

    def scored_model(self) -> ScoredModel:
        """The present state, as scoring takes it."""
        return ScoredModel(
            self.family, self.stack, self.parallel.device, self.precision, keeps_scores=self.parallel.keeps_scores
        )

    # Data

    def task_position(self, task_id: int) -> int:
        """Which task of its sequence a task is to the method."""
        return self.sequence.method.run_kind.task_position(task_id)

    def features(self, task_id: int) -> Sequence[Feature]:
        """The train split of a task as token ids."""
        return self.family.features_of(self.stream.tasks[task_id], "train")

    def examples(self, task_id: int) -> list[Feature]:
        """The same as `features`, kept in memory: methods ask for old tasks again and again."""
        if task_id not in self._examples:
            self._examples[task_id] = list(self.features(task_id))
        return self._examples[task_id]

    def training_set(self, task_id: int) -> list[Feature]:
        """What a task is trained on: its own examples, unless the method changes that."""
        if task_id not in self._training_sets:
            own: list[Feature] = []
            for trained_id in self.sequence.method.run_kind.tasks_to_train(task_id, len(self.sequence.tasks)):
                own.extend(self.features(trained_id))
            chosen = self.stack.training_set(self.task_position(task_id), own, self.examples)
            # One task at a time is trained, and asks for its set more than once: older ones only take memory
            self._training_sets = {task_id: cast("list[Feature]", list(chosen))}
        return self._training_sets[task_id]

    def global_batches(self, task_id: int, steps_done: int = 0) -> Iterator[list[Feature]]:
        """The global batch of each step of a task after the first ones, epoch after epoch without end."""
        features = self.training_set(task_id)
        position = self.task_position(task_id)
        num_new = self.stack.num_new_examples(position, self.sequence.training.global_batch)
        step = 0
        for epoch in itertools.count():
            for indices in global_batches(len(features), num_new, self.sequence.seed, position, epoch):
                step += 1
                if step <= steps_done:
                    continue
                new_examples = [features[index] for index in indices]
                # methods know examples as mappings only; what they give back are features that they were given
                composed = cast("Sequence[Feature]", self.stack.compose_batch(position, step, new_examples))
                yield list(self.family.drawn(composed, position, epoch))

    def my_micro_batches(self, examples: Sequence[Feature]) -> list[tuple[int, list[Feature]]]:
        """This worker's micro-batches of a global batch, each with its index among those of all workers."""
        size = self.micro_batch.size
        by_length = cut_by_length(examples, size, self.family.length)
        return micro_batches(by_length, size, self.parallel.rank, self.parallel.count)

    def loss_denominator(self, examples: Sequence[Feature]) -> int:
        """What the summed loss of examples is divided by: their label tokens, or how many they are."""
        return sum(map(self.family.loss_terms, examples))

    def make_batch(self, features: Sequence[Feature], loss_denominator: int) -> Batch:
        """A micro-batch on this worker's device, with its weight in a loss over `loss_denominator` terms."""
        batch = self.family.collate(features)
        if self.parallel.device.type == "cuda":
            # from ordinary memory a copy to the GPU would make the CPU wait for it
            batch = batch.pinned()
        batch = batch.to(self.parallel.device)
        return batch.replace(
            loss_weight=self.loss_denominator(features) / loss_denominator,
            loss_denominator=loss_denominator,
            num_old_classes=self.family.num_old_classes,
        )

    def batches(self, examples: Sequence[Feature], rng: torch.Generator | None = None) -> Iterator[Batch]:
        """This worker's micro-batches of examples, on its device; in a random order where `rng` is given.

        (Those of all workers where the model is in parts, see `Parallel.dealt_among`.) The cut is training's, so the number
        of workers changes none of them. `example_indices` count in that order.
        """
        order = list(range(len(examples)))
        if rng is not None:
            order = torch.randperm(len(examples), generator=rng).tolist()
        ordered = [examples[index] for index in order]
        loss_denominator = self.loss_denominator(examples)
        size = self.micro_batch.size
        for micro_batch_index, features in micro_batches(ordered, size, *self.parallel.dealt_among):
            # Every micro-batch but the last has that size
            first = micro_batch_index * size
            batch = self.make_batch(features, loss_denominator)
            yield batch.replace(example_indices=list(range(first, first + len(features))))
