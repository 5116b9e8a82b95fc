"""DER++: old examples again, with their answers and with the logits that the model once gave (arXiv 2004.07211).

Shapes: N answer tokens (examples, for a classifier), K columns of the logits (vocabulary or labels), E examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Example, Method, Settings, State, at_least_float32
from methods.batch import Batch
from methods.replay.memory import add_to_gradients, draw, gradient_of, kept, losses, remembered, remembered_count
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.passes import evaluating
from methods.shared.shards import local

T = TypeVar("T")


class DerppSettings(Settings):
    """Defaults within the paper's usual range: alpha 0.1 to 1, beta 0.5 to 1; 0 leaves a term out."""

    alpha: float = Field(0.3, ge=0, allow_inf_nan=False, description="weight of the distance to the stored logits")
    beta: float = Field(0.5, ge=0, allow_inf_nan=False, description="weight of the loss on kept examples")
    fraction: float = Field(0.02, ge=0, le=1, description="share of each task's examples that is kept")
    examples: int = Field(32, ge=1, description="kept examples for each term of a step; all where fewer are kept")


def _at(items: Sequence[T], indices: Sequence[int]) -> list[T]:
    return [items[i] for i in indices]


def squared_error(new_NK: Tensor, old: Sequence[Tensor]) -> Tensor:
    """The sum over answers of the mean over columns of (new - old)^2. `old` has the answers of each example in turn,
    [n, K'] with K' <= K: columns that came later do not count.
    """
    new_by_example = at_least_float32(new_NK).split(list(map(len, old)))
    errors = []
    for new, old_nK in zip(new_by_example, old, strict=True):
        difference = new[:, : old_nK.shape[1]] - old_nK.to(new)
        errors.append(difference.square().mean(1).sum())
    return torch.stack(errors).sum()


@torch.no_grad()
def logits_of(context: Context, model: nn.Module, examples: Sequence[Example]) -> tuple[Tensor, list[int]]:
    """([N, K], N of each example): the answers' logits in evaluation mode, on the CPU, the same on every worker."""
    found: dict[int, Tensor] = {}
    with evaluating(model):
        for batch in context.batches(examples):
            logits_NK = context.forward(model, batch)[1]
            by_example = logits_NK.split(batch.answers_by_example())
            found.update(zip(batch.example_indices, by_example, strict=True))
    weight = at_least_float32(local(next(model.parameters())))
    shapes_E2 = weight.new_zeros(len(examples), 2)
    for example_index, logits_nK in found.items():
        shapes_E2[example_index] = torch.tensor(logits_nK.shape).to(shapes_E2)
    # each worker knows its own examples; what it lacks is zero, so the sum over workers is whole
    shapes_E2 = context.sum_over_workers(shapes_E2).round().long()
    counts = shapes_E2[:, 0].tolist()
    together_NK = weight.new_zeros(sum(counts), int(shapes_E2[:, 1].max()))
    parts = together_NK.split(counts)
    for example_index, logits_nK in found.items():
        parts[example_index].copy_(logits_nK)
    return context.sum_over_workers(together_NK).cpu(), counts


class Derpp(Cost, CacheFields, Method):
    """Adds alpha mean (z(x') - z')^2 + beta CE(x'', y'') to the loss, from the second task on.

    x' and x'' are drawn for each step, independently, from what is kept of all earlier tasks together, none twice in a draw.
    The first mean is over answer tokens (a classifier's examples) and over the columns that z' has: the vocabulary, or the
    labels that there were. We depart from the paper: it keeps a reservoir, and the logits of the moment in training at which
    an example came in; here a seeded share of each task is kept, and z' is what the model gives right after the task, in
    evaluation mode, which depends on no order and no number of workers. The passes for both terms have no dropout. The
    reported loss is without them. A plug-in listed later changes the summed gradient; list `merge` before this one.
    """

    Settings = DerppSettings
    card = Card(
        summary="old examples with their answers and the model's old logits",
        paper="2004.07211",
        needs=("boundaries", "old data"),
        memory="a share of each task's examples; of their answers, 4 bytes for each column of the logits: "
        "the labels, or for each token the vocabulary (T5's: 128 kB); and a second gradient",
        kept_share="fraction",
        space={"alpha": [0.1, 0.2, 0.5, 1.0], "beta": [0.5, 1.0]},
        requires_gradients=True,
        strength_zero={"alpha": 0.0, "beta": 0.0},
        strong={"alpha": 1.0, "beta": 1.0},
    )

    def __init__(self, settings: DerppSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.logits: dict[int, Tensor] = {}  # by task, [N, K]
        self.counts: dict[int, list[int]] = {}  # by task, N of each example
        self.kept: list[Example] = []
        self.old: list[Tensor] = []  # the logits of each kept example
        self.task_id = 0
        self.steps = 0

    @property
    def _stores(self) -> bool:
        return self.settings.alpha > 0 and self.settings.fraction > 0

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id > 0:
            return self.settings.model_dump()
        # the first task is trained plainly, but its logits are part of the state
        if self._stores:
            return self.settings.model_dump(include={"fraction"})
        return None

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        s: DerppSettings = self.settings
        num_kept = remembered_count(self.context, task_id, s.fraction)
        num_terms = (s.alpha > 0) + (s.beta > 0)
        return ExtraPasses(training=num_terms * min(s.examples, num_kept) / size)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.task_id = task_id
        self.steps = 0
        self.kept = remembered(self.context, task_id, self.settings.fraction)
        self.old = []
        if self._stores:
            for task in range(task_id):
                self.old.extend(self.logits[task].split(self.counts[task]))
            # in the order of `kept`: each logits belong to the example of the same index
            assert len(self.old) == len(self.kept)

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Gradients add up as losses do, so this equals adding the terms to the loss, once a step whatever its batches."""
        self.steps += 1
        if self.kept and (self.settings.alpha > 0 or self.settings.beta > 0):
            add_to_gradients(model, gradient_of(self.context, model, self._shares(model)))

    def _draw(self, what: str) -> list[int]:
        """Indices of kept examples."""
        count = min(self.settings.examples, len(self.kept))
        return draw(range(len(self.kept)), count, self.context.seed, "derpp", what, self.task_id, self.steps)

    def _shares(self, model: nn.Module) -> Iterator[Tensor]:
        """Both terms of a step, cut into this worker's micro-batches."""
        s: DerppSettings = self.settings
        if s.alpha > 0:
            drawn = self._draw("logits")
            old = _at(self.old, drawn)
            # over all workers' micro-batches: the mean is that of the whole draw
            num_answers = sum(map(len, old))
            for batch in self.context.batches(_at(self.kept, drawn)):
                new = self.context.forward(model, batch)[1]
                error = squared_error(new, _at(old, batch.example_indices))
                yield s.alpha * error / num_answers
        if s.beta > 0:
            for loss in losses(self.context, model, _at(self.kept, self._draw("answers"))):
                yield s.beta * loss

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self._stores:
            examples = kept(self.context.seed, task_id, self.context.examples(task_id), self.settings.fraction)
            self.logits[task_id], self.counts[task_id] = logits_of(self.context, model, examples)

    def state_dict(self) -> State:
        """`logits` [N, K] and `counts` by task."""
        if not self.logits:
            return {}
        state: State = {"logits": {}, "counts": {}}
        for task, logits_NK in self.logits.items():
            # a checkpoint's names are text
            state["logits"][str(task)] = logits_NK
            state["counts"][str(task)] = self.counts[task]
        return state

    def load_state_dict(self, state: State) -> None:
        self.logits = {}
        self.counts = {}
        for task, logits_NK in state["logits"].items():
            self.logits[int(task)] = logits_NK
            self.counts[int(task)] = list(state["counts"][task])
