"""Scores amid training: after which steps, on which examples, and how a model that trains is looked at.

The stability gap, a fall right after a switch of tasks that training then mends, is seen in no state after a task
(arXiv 2205.13452, whose authors call this continual evaluation).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from methods import generator
from orchestrator.config.running import DuringConfig
from orchestrator.evaluation.scores import ScoredModel, TaskScore, score_examples
from orchestrator.evaluation.texts import Texts
from orchestrator.planning.sequence_plan import SequencePlan
from streams import Example, Stream, Task

WHY = "scores amid training"


def point_steps(num_steps: int, every: int) -> list[int]:
    """The steps of a task after which it has points: 0 (before the first), 1, 2, 4, 8, …; from `every` on, each multiple of
    that; and the last.
    """
    steps = {0, num_steps, *range(every, num_steps, every)}
    early = 1
    while early < min(every, num_steps):
        steps.add(early)
        early *= 2
    return sorted(steps)


def drawn_examples(examples: Sequence[Example], most: int, seed: int, content: str) -> list[Example]:
    """At most so many of a split's examples, drawn by the sequence's seed and the split's hash, in the split's order."""
    # not by the task's name: where a task comes again under another one, the same examples are scored
    order = torch.randperm(len(examples), generator=generator(seed, "points", content))
    return [examples[index] for index in sorted(order[:most].tolist())]


@contextlib.contextmanager
def undisturbed(model: ScoredModel) -> Iterator[None]:
    """While a model that trains answers: what that changes is put back, so that it trains as if nobody had asked."""
    module = model.family.module
    # one by one: a method may keep a part of the model in evaluation mode while it trains the others
    modes = [(part, part.training) for part in module.modules()]
    devices = []
    if model.device.type == "cuda":
        devices.append(model.device)
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            model.stack.after_scoring(module)
            for part, was_training in modes:
                part.training = was_training


@dataclass(frozen=True)
class _Drawn:
    """A task's examples that are scored amid training, as token ids too."""

    examples: Sequence[Example]
    texts: Texts


class Looks:
    """Scores the present weights of a model on a few examples of a task, as `evaluation.during` says."""

    def __init__(self, during: DuringConfig, sequence: SequencePlan, stream: Stream) -> None:
        self.during = during
        self.sequence = sequence
        self.stream = stream
        # drawn and tokenised once: they are asked for again after every few steps
        self._drawn: dict[int, _Drawn] = {}

    def score(self, model: ScoredModel, task_id: int) -> TaskScore:
        """The score on a task. To be called within `undisturbed`."""
        task = self.stream.tasks[task_id]
        if task_id not in self._drawn:
            self._drawn[task_id] = self._draw(model, task)
        drawn = self._drawn[task_id]
        position = self.sequence.method.run_kind.task_position(task_id)
        model.stack.before_scoring(model.family.module, position)
        batch = self.sequence.evaluation.batch
        # a curve of many scores shows by itself how much they move
        return score_examples(model, task, drawn.examples, drawn.texts, batch, resamples=False)

    def _draw(self, model: ScoredModel, task: Task) -> _Drawn:
        sequence = self.sequence
        # before it is read, and in its own words: the log must show that a test split was looked at amid training
        sequence.note_test_read(task, WHY)
        content = task.split_hash(sequence.split)
        examples = drawn_examples(task.read(sequence.split), self.during.examples, sequence.seed, content)
        return _Drawn(examples, Texts.packed(model.family.features(task, examples)))
