"""The Method seam: what a continual-learning method may see and change, and when.

A method of an experiment is one *tuning method* (which parameters train) plus plug-ins in a given order, held together by
`Stack`. Both kinds are `Method`s; a tuning method adds `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from torch import Tensor, nn

from methods.batch import Batch
from methods.seam.booleans import refuse_boolean, refuse_no_number
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost
from methods.seam.data_policy import DataPolicy, Example
from methods.seam.scored_weights import ScoredWeights
from methods.seam.stored_form import StoredForm
from methods.shared.tensors import at_least_float32, generator, trainable

State = dict[str, Any]

# The name of the run's own model, where a setting names a model: of a built-in one another draw, else the very same
OWN_MODEL = "own"


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _no_model(*args: Any) -> Any:
    raise NotImplementedError("this context has no model and no data")


def gradients_alone(value: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The gradients of a scalar as this worker alone has them; None for a parameter on which it does not depend."""
    return torch.autograd.grad(value, list(parameters), allow_unused=True)


def _no_steps() -> int:
    raise NotImplementedError("this context trains no task")


@dataclass(frozen=True)
class Context:
    """What a method is given at construction.

    `mean_over_workers` averages a tensor in place over all workers of the sequence and gives it back, `from_first_worker`
    gives all of them the first one's, for what rounding may make different on each (a decomposition); every worker must call
    them equally often. A sharded tensor (`methods.shared.shards`) is one for all workers, and comes back as it is.
    `gradients(value, parameters)` differentiates a scalar by parameters, None where it does not depend on one; no `.grad` is
    touched (of a sharded parameter autograd itself would give none, without a word). `seed` is the sequence's: all randomness
    of a method comes from generators seeded by it, so that all workers draw the same. `forward(model, batch)` gives (summed
    loss, logits) as training computes them, for passes of a method's own; `model` may be anything that is called as the model
    is. `embed(batch)` gives the unit-length mean over a text's last hidden states [B, d]. `examples(i)` gives the train split
    of task i, and `batches(examples, rng)` this worker's micro-batches of any examples (in a random order if `rng` is given),
    each with its loss weight and denominator among them all. `labels[i]` counts the labels of tasks 0 to i, and `label_units`
    are the parameters with a row for each label of the stream, in that order. `shared_weights` says whether tasks train the
    same weights one after another, `alone_with_gradients` whether no other part of the method adds to the loss or looks at
    gradients. `own_exchange` says whether a method may average gradients over workers by itself (`Method.exchanges`).
    `num_steps()` gives how many steps the task that is trained has, from `before_task` on. `model_weights(name)` gives the
    parameters, on the CPU and without a task head, of a model that a setting names by its folder or hub id ("" is the run's
    own before training), and `model_identity(name)` a name for those exact weights; without it a name stands for itself.
    """

    seed: int
    mean_over_workers: Callable[[Tensor], Tensor] = _identity
    forward: Callable[[Any, Batch], tuple[Tensor, Tensor]] = _no_model
    from_first_worker: Callable[[Tensor], Tensor] = _identity
    embed: Callable[[Batch], Tensor] = _no_model
    examples: Callable[[int], Sequence[Example]] = _no_model
    batches: Callable[..., Iterator[Batch]] = _no_model
    labels: Sequence[int] = ()
    label_units: Sequence[nn.Parameter] = ()
    workers: int = 1
    own_exchange: bool = False
    gradients: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor | None]] = gradients_alone
    shared_weights: bool = True
    alone_with_gradients: bool = False
    num_steps: Callable[[], int] = _no_steps
    model_weights: Callable[[str], Mapping[str, Tensor]] = _no_model
    model_identity: Callable[[str], str] = str

    def sum_over_workers(self, tensor: Tensor) -> Tensor:
        """The sum over all workers of what each has found in its `batches`; the tensor given is used up."""
        return self.mean_over_workers(tensor) * self.workers


class Settings(BaseModel):
    """A method's settings: frozen, and refusing what it does not know."""

    # frozen, as cache keys are made of them; no further keys, as a misspelt one would train with a default unnoticed
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_boolean(value, cls.model_fields[str(info.field_name)].annotation)
        return value

    @field_validator("*")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        refuse_no_number(value)
        return value


class Method:
    """Hooks, all no-ops, and two state methods. Hooks see the unwrapped model.

    What a method may do beyond timing is apart from them, each part a class to derive from too: `DataPolicy`, `Cost`,
    `CacheFields`, `ScoredWeights`, `StoredForm`; and its `card` says what it is.

    What it holds amid a task is read from its attributes (`seam.amid_task`): tensors, numbers and generators, in lists and
    objects too, but no `id(...)` of anything, which is another one in the next process.

    `task_id` counts from 0. `batches` iterates over this worker's batches of the task in a random order that is not
    training's; `batch.example_indices` numbers the examples in that order, over all workers. A method's own forward
    passes run in evaluation mode, in which no other method's forward hook may count.
    """

    Settings: ClassVar[type[Settings]] = Settings
    card: ClassVar[Card] = Card()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises TypeError where a class defines what belongs to a part of the seam that it does not have."""
        super().__init_subclass__(**kwargs)
        for part in (DataPolicy, Cost, CacheFields, ScoredWeights, StoredForm):
            if issubclass(cls, part):
                continue
            for name, member in vars(part).items():
                # a forgotten base class raises nothing by itself: the run would only be another one than was meant
                if callable(member) and hasattr(cls, name):
                    raise TypeError(
                        f"{cls.__name__}.{name} is never called unless the class derives from {part.__name__}"
                    )

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings
        self.context = context

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        """Raises ValueError where the method cannot work on the prepared model; asked before anything starts.

        The model lies on the meta device: it has shapes and no values (see `methods.shared.shapes`).
        """

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Called before the optimizer of a task is made."""

    def exchanges(self) -> Sequence[nn.Parameter]:
        """The parameters whose gradients the method averages over workers by itself, in `add_gradients`.

        Asked after `before_task`; for one that knows which part of them is zero. None unless `context.own_exchange`.
        """
        return ()

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        """Called once a step, before its first forward pass, with this worker's micro-batches of it, before `on_batch`.

        What it does to the weights, it must do alike on every worker; gradients that it leaves are cleared.
        """

    def on_batch(self, batch: Batch) -> Batch:
        """Called with every micro-batch before its forward pass."""
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        """Called with a micro-batch's part of the global mean loss; returns the loss to differentiate.

        `logits` [N, K] are those that the loss compares with `batch.answer_tokens()`, in that order.
        """
        return loss

    def add_gradients(self, model: nn.Module) -> None:
        """Called once a step, after accumulation and averaging over workers, before any part's `before_optimizer_step`.

        The place to add to the gradients what does not depend on the step's examples, such as a penalty's.
        """

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Called once a step: after all gradients are there, before clipping."""

    def after_optimizer_step(self, model: nn.Module) -> None:
        """Called once a step, after the optimizer."""

    def measure(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Called after the last step of a task, before any part's `after_task`: the place for what `diagnostics` shows.

        It influences nothing, and its time does not count as training.
        """

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

    # where not, no step is made, and of the hooks `after_task` alone is called
    trains_by_gradient: ClassVar[bool] = True

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Freeze, unfreeze or extend the model, once, before the first task. Parameters in `head` always train.

        A model of which each worker will hold a part has no values yet: what needs them says so in `Card.not_sharded`.
        """
        raise NotImplementedError

    def grow(self, model: nn.Module, tasks: int) -> None:
        """Give the model the structure that it has once `tasks` tasks were begun, whatever it has now.

        Called before a task is trained and before a state is loaded. What is new comes from `generator(seed, …)`.
        """

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint holds, between tasks: all that training may have made different from the prepared model."""
        return dict(trainable(model))

    def without_decay(self) -> Sequence[nn.Parameter]:
        """Parameters that get no weight decay, beside biases, norms and the task head.

        Decay also shrinks what no gradient reaches: a prompt or a key that no text picks would fade away.
        """
        return ()

    def rate_factors(self, model: nn.Module) -> Mapping[str, float]:
        """Factors on `training.lr` by parameter name, 1 where there is none; a rate of `training.lrs` stays as it is given."""
        return {}

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        """Called before the model answers examples of a task, perhaps one that it was not trained on yet.

        Perhaps amid the training of another task, too: then `after_scoring` follows before the next step.
        """

    def after_scoring(self, model: nn.Module) -> None:
        """Called when the model has answered amid the training of a task: to put back what `before_scoring` has set.

        A method that has the one and not the other is refused where scores amid training are asked for.
        """

    def class_scores(self, embedded_Bd: Tensor) -> Tensor:
        """[B, K]: scores of the stream's labels so far. Asked of a method that trains its own rule, not the model."""
        raise NotImplementedError


__all__ = [
    "Batch",
    "Context",
    "Example",
    "Method",
    "Settings",
    "State",
    "TuningMethod",
    "at_least_float32",
    "generator",
    "gradients_alone",
    "trainable",
]
