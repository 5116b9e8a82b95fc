"""The Method seam: what a continual-learning method may see and change, and when.

A method of an experiment is one *tuning method* (which parameters train) plus plug-ins in a given order, held together by
`Stack`. Both kinds are `Method`s; a tuning method adds `prepare`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from methods.batch import Batch

State = dict[str, Any]
Example = Mapping[str, Any]  # one example as token ids, before it is collated


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _no_model(*args: Any) -> Any:
    raise NotImplementedError("this context has no model and no data")


@dataclass(frozen=True)
class Context:
    """What a method is given at construction.

    `mean_over_workers` averages a tensor over all workers of the sequence (the identity for one), `from_first_worker` gives
    all of them the first one's, for what rounding may make different on each (a decomposition); every worker must call
    them equally often. `seed` is the sequence's: all randomness of a method comes from generators seeded by it, so that
    all workers draw the same. `forward(model, batch)` gives (summed loss, logits) as training computes them, for passes of a
    method's own; `model` may be anything that is called as the model is. `embed(batch)` gives the unit-length mean over a
    text's last hidden states [B, d]. `examples(i)` gives the train split of task i, and `batches(examples, rng)` this worker's
    micro-batches of any examples (in a random order if `rng` is given), each with its loss weight and denominator among them all.
    `labels[i]` counts the labels of tasks 0 to i. `lasting` says whether tasks train the same weights one after another.
    """

    seed: int
    mean_over_workers: Callable[[Tensor], Tensor] = _identity
    forward: Callable[[Any, Batch], tuple[Tensor, Tensor]] = _no_model
    from_first_worker: Callable[[Tensor], Tensor] = _identity
    embed: Callable[[Batch], Tensor] = _no_model
    examples: Callable[[int], Sequence[Example]] = _no_model
    batches: Callable[..., Iterator[Batch]] = _no_model
    labels: Sequence[int] = ()
    workers: int = 1
    shared_weights: bool = True


class ExtraPasses(NamedTuple):
    """Passes over a global batch: forward alone, and forward and backward as training's own."""

    forward: float = 0.0
    training: float = 0.0


class Settings(BaseModel):
    """A method's settings: frozen, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method:
    """Hooks, all no-ops, and two state methods. Hooks see the unwrapped model.

    `task_id` counts from 0. `batches` iterates over this worker's batches of the task in a random order that is not
    training's; `batch.example_indices` numbers the examples in that order, over all workers. A method's own forward
    passes run in evaluation mode, in which no other method's forward hook may count.
    """

    Settings: ClassVar[type[Settings]] = Settings
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    space: ClassVar[Mapping[str, Sequence[Any]]] = {}  # values that a search tries, by setting
    # what it is told beyond the data of the present task: "boundaries", "old data", "task labels" (when answering)
    needs: ClassVar[tuple[str, ...]] = ()
    # what it keeps beside the model, in words
    memory: ClassVar[str] = ""
    # what a combination must offer: trained linear rows inside the blocks (see methods.rows), a model that generates
    requires_output_units: ClassVar[bool] = False
    requires_shared_weights: ClassVar[bool] = False  # weights that later tasks train on
    requires_generation: ClassVar[bool] = False
    requires_gradients: ClassVar[bool] = False  # steps along the gradients that `before_optimizer_step` leaves
    # how `after_task` changes the trained weights, where it does: then they cannot go on from before the last steps
    modifies_weights_after_task: ClassVar[str] = ""

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings
        self.context = context

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        """The settings that can influence the weights while training task `task_id`; None where the method does nothing.

        Checkpoints are shared between all methods whose influence is the same up to a task.
        """
        return self.settings.model_dump()

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        """What the task is trained on, instead of `chosen`. `old(i)` gives the examples of an earlier task i again.

        A pure function of the seed and its arguments: every worker, and every resume, calls it anew.
        """
        return chosen

    def num_new_examples(self, task_id: int, size: int) -> int:
        """How many examples of a global batch of `size` come from the task's training set; `compose_batch` adds the others."""
        return size

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        """The whole global batch of a step (counted from 1 over the task). A pure function, as `training_set` is."""
        return chosen

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        """What it computes a step beside training's own pass, in passes over a global batch of `size`.

        What runs once a task is not counted.
        """
        return ExtraPasses()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Called before the optimizer of a task is made."""

    def on_batch(self, batch: Batch) -> Batch:
        """Called with every micro-batch before its forward pass."""
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        """Called with a micro-batch's share of the global mean loss; returns the loss to differentiate."""
        return loss

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Called once a step: after accumulation and averaging over workers, before clipping."""

    def after_optimizer_step(self, model: nn.Module) -> None:
        """Called once a step, after the optimizer."""

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Called after the last step of a task, before its checkpoint."""

    def state_dict(self) -> State:
        """All that outlives a task: tensors and plain values by name."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` gave."""

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """Numbers about the task that has just been trained, asked for after `after_task`. They influence nothing."""
        return {}


class TuningMethod(Method):
    """A tuning method: decides which parameters train, at which rates, and what the model is after how many tasks."""

    # whether it trains by gradients at all
    trains_by_gradient: ClassVar[bool] = True
    training_space: ClassVar[Mapping[str, Sequence[Any]]] = {"lr": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)}
    # why no linear rows inside the blocks train by plain gradients, where that is so
    no_output_units: ClassVar[str] = ""
    # why what one task trains is not what the next one trains, where that is so
    per_task_weights: ClassVar[str] = ""
    # why the optimizer does not follow the parameters' own gradients, where that is so
    no_gradients: ClassVar[str] = ""

    def model_cache_fields(self) -> Mapping[str, Any]:
        """The settings that decide the untrained model. The others count from the first task that they influence."""
        return self.settings.model_dump()

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Freeze, unfreeze or extend the model, once, before row 0. Parameters in `head` always train."""
        raise NotImplementedError

    def grow(self, model: nn.Module, tasks: int) -> None:
        """Give the model the structure that it has once `tasks` tasks were begun, whatever it has now.

        Called before a task is trained and before a state is loaded. What is new comes from `generator(seed, …)`.
        """

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint holds, between tasks: all that training may have made different from the prepared model."""
        return dict(trainable(model))

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that the next task moves, by name, as they are before `before_task`. For counting what it costs."""
        return dict(trainable(model))

    def added_tokens(self, task_id: int) -> int:
        """How many vectors stand among the tokens of each input while a task is trained. For counting what it costs."""
        return 0

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        """Called before the model answers examples of a task, perhaps one that it was not trained on yet."""

    def class_scores(self, embedded_Bd: Tensor) -> Tensor:
        """[B, K]: scores of the stream's labels so far. Asked of a method that trains its own rule, not the model."""
        raise NotImplementedError


class Stack(Method):
    """A tuning method and its plug-ins as one method; hooks run in the given order."""

    def __init__(self, tuning: TuningMethod, plugins: Sequence[tuple[str, Method]], tuning_name: str) -> None:
        self.tuning = tuning
        self.parts: list[tuple[str, Method]] = [(tuning_name, tuning), *plugins]

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Let the tuning method prepare the model."""
        return self.tuning.prepare(model, head)

    def initial_cache_fields(self) -> Mapping[str, Any]:
        """What decides the model before training."""
        return {"name": self.parts[0][0], "settings": self.tuning.model_cache_fields()}

    def grow(self, model: nn.Module, tasks: int) -> None:
        """The tuning method's structure after so many tasks."""
        self.tuning.grow(model, tasks)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return self.tuning.weights(model)

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that the tuning method lets the next task move."""
        return self.tuning.trains(model)

    def added_tokens(self, task_id: int) -> int:
        """The tuning method's vectors among the tokens of each input."""
        return self.tuning.added_tokens(task_id)

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        """Let the tuning method know which task is answered."""
        self.tuning.before_scoring(model, task_id)

    def cache_fields(self, task_id: int) -> Mapping[str, Any]:
        """The influences of all parts that have one, in order."""
        found = [(name, part.cache_fields(task_id)) for name, part in self.parts]
        return {"parts": [{"name": name, **settings} for name, settings in found if settings is not None]}

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        for _, part in self.parts:
            chosen = part.training_set(task_id, chosen, old)
        return chosen

    def num_new_examples(self, task_id: int, size: int) -> int:
        return min(part.num_new_examples(task_id, size) for _, part in self.parts)

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        for _, part in self.parts:
            chosen = part.compose_batch(task_id, step, chosen)
        return chosen

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        found = [part.extra_passes(task_id, size) for _, part in self.parts]
        return ExtraPasses(sum(p.forward for p in found), sum(p.training for p in found))

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for _, part in self.parts:
            part.before_task(model, task_id, batches)

    def on_batch(self, batch: Batch) -> Batch:
        for _, part in self.parts:
            batch = part.on_batch(batch)
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        for _, part in self.parts:
            loss = part.after_forward(model, batch, logits, loss)
        return loss

    def before_optimizer_step(self, model: nn.Module) -> None:
        for _, part in self.parts:
            part.before_optimizer_step(model)

    def after_optimizer_step(self, model: nn.Module) -> None:
        for _, part in self.parts:
            part.after_optimizer_step(model)

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for _, part in self.parts:
            part.after_task(model, task_id, batches)

    def state_dict(self) -> State:
        """Every part's state under its number among the parts of its name, as `0:migu`; parts without state are absent.

        Not under its place among all parts: a checkpoint is shared by methods that differ in parts which did nothing yet.
        """
        states = {f"{i}:{name}": part.state_dict() for i, name, part in self._numbered()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: State) -> None:
        """Restore each part. A part that the checkpoint does not know keeps its initial state."""
        for i, name, part in self._numbered():
            if f"{i}:{name}" in state:
                part.load_state_dict(state[f"{i}:{name}"])

    def _numbered(self) -> Iterator[tuple[int, str, Method]]:
        seen: Counter[str] = Counter()
        for name, part in self.parts:
            yield seen[name], name, part
            seen[name] += 1

    def collect_diagnostics(self, task_id: int) -> dict[str, float | list[Any]]:
        """The numbers of every part that took part in a task, as `part/number`."""
        parts = [(name, part) for name, part in self.parts if part.cache_fields(task_id) is not None]
        return {f"{name}/{key}": value for name, part in parts for key, value in part.diagnostics().items()}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Sums of many terms are not taken in bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by the given values and nothing else."""
    from hashlib import sha256

    digest = sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
