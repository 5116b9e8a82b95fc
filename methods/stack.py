"""A tuning method and its plug-ins, held together as one: hooks run in the given order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from methods.base import Method, State, TuningMethod
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.cost import Cost, ExtraPasses
from methods.seam.data_policy import DataPolicy, Example
from methods.seam.scored_weights import ScoredWeights
from methods.seam.stored_form import StoredForm
from methods.shared.tensors import at_least_float32, trainable
from methods.source_code import code_fields


class Stack:
    """A tuning method and its plug-ins as one method; hooks run in the given order."""

    def __init__(self, tuning: TuningMethod, plugins: Sequence[tuple[str, Method]], tuning_name: str) -> None:
        self.tuning = tuning
        self.parts: list[tuple[str, Method]] = [(tuning_name, tuning), *plugins]

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Let the tuning method prepare the model."""
        return self.tuning.prepare(model, head)

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        """Let all parts say whether they can work on the model. Raises ValueError."""
        for _, part in self.parts:
            part.check_model(model, batch)

    def initial_cache_fields(self) -> Mapping[str, Any]:
        """What decides the model before training."""
        # plug-ins change nothing before training, so all methods of one tuning method share its initial scores
        if isinstance(self.tuning, CacheFields):
            settings = self.tuning.model_cache_fields()
        else:
            settings = self.tuning.settings.model_dump()
        return {"name": self.parts[0][0], "settings": settings, **code_fields(type(self.tuning))}

    def grow(self, model: nn.Module, tasks: int) -> None:
        """The tuning method's structure after so many tasks."""
        before = set(map(id, model.parameters()))
        self.tuning.grow(model, tasks)
        for parameter in model.parameters():
            # what grows takes the type of the weight beside it, and bfloat16 would swallow the small steps of what trains
            if id(parameter) not in before and parameter.is_floating_point():
                parameter.data = at_least_float32(parameter.data)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return self.tuning.weights(model)

    @property
    def scores_other_weights(self) -> bool:
        """Whether a part scores other weights than those that training goes on from."""
        return any(isinstance(part, ScoredWeights) for _, part in self.parts)

    def scored(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is scored after a task instead of its weights, after every part that says so, in order."""
        scored = dict(weights)
        for _, part in self.parts:
            if isinstance(part, ScoredWeights):
                scored = part.scored(model, scored)
        return scored

    @property
    def stored_form(self) -> StoredForm | None:
        """The part that says in what form the weights are stored; none where they are stored as they are."""
        for _, part in self.parts:
            # the first is the only one: no method has two
            if isinstance(part, StoredForm):
                return part
        return None

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that the tuning method lets the next task move."""
        if isinstance(self.tuning, Cost):
            return self.tuning.trains(model)
        return dict(trainable(model))

    def unread(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that no token reads while the next task is trained."""
        if isinstance(self.tuning, Cost):
            return self.tuning.unread(model)
        return {}

    def added_tokens(self, task_id: int) -> int:
        """The number of the tuning method's vectors among the tokens of each input."""
        if isinstance(self.tuning, Cost):
            return self.tuning.added_tokens(task_id)
        return 0

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        """Let the tuning method know which task is answered."""
        self.tuning.before_scoring(model, task_id)

    def cache_fields(self, task_id: int) -> Mapping[str, Any]:
        """The cache fields of all parts that have some in this task, in order."""
        parts = []
        for name, part in self.parts:
            fields = _cache_fields(part, task_id)
            # left out, not empty: a plug-in that does nothing yet shares its checkpoints with the method without it
            if fields is not None:
                parts.append({"name": name, **fields, **code_fields(type(part))})
        return {"parts": parts}

    @property
    def _policies(self) -> list[DataPolicy]:
        policies: list[DataPolicy] = []
        for _, part in self.parts:
            if isinstance(part, DataPolicy):
                policies.append(part)
        return policies

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        """What the task is trained on after every data policy, in order."""
        for policy in self._policies:
            chosen = policy.training_set(task_id, chosen, old)
        return chosen

    def num_new_examples(self, task_id: int, size: int) -> int:
        """The smallest number of new examples that a data policy leaves in a global batch of `size`."""
        smallest = size
        for policy in self._policies:
            smallest = min(smallest, policy.num_new_examples(task_id, size))
        return smallest

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        """The whole global batch of a step after every data policy, in order."""
        for policy in self._policies:
            chosen = policy.compose_batch(task_id, step, chosen)
        return chosen

    @property
    def composes_batches(self) -> bool:
        """Whether a data policy makes global batches other than they are cut."""
        return any(type(policy).compose_batch is not DataPolicy.compose_batch for policy in self._policies)

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        """The passes of all parts together."""
        total = ExtraPasses()
        for _, part in self.parts:
            if isinstance(part, Cost):
                passes = part.extra_passes(task_id, size)
                total = ExtraPasses(total.forward + passes.forward, total.training + passes.training)
        return total

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for _, part in self.parts:
            part.before_task(model, task_id, batches)

    def exchanges(self) -> list[nn.Parameter]:
        """The parameters whose gradients parts average over workers by themselves."""
        found: list[nn.Parameter] = []
        for _, part in self.parts:
            found.extend(part.exchanges())
        return found

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        for _, part in self.parts:
            part.before_step(model, batches)

    def on_batch(self, batch: Batch) -> Batch:
        for _, part in self.parts:
            batch = part.on_batch(batch)
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        for _, part in self.parts:
            loss = part.after_forward(model, batch, logits, loss)
        return loss

    def add_gradients(self, model: nn.Module) -> None:
        for _, part in self.parts:
            part.add_gradients(model)

    def before_optimizer_step(self, model: nn.Module) -> None:
        for _, part in self.parts:
            part.before_optimizer_step(model)

    def after_optimizer_step(self, model: nn.Module) -> None:
        for _, part in self.parts:
            part.after_optimizer_step(model)

    def measure(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for _, part in self.parts:
            part.measure(model, task_id, batches)

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for _, part in self.parts:
            part.after_task(model, task_id, batches)

    def state_dict(self) -> State:
        """Every part's state under its number among the parts of its name, as `0:migu`; parts without state are absent.

        The number does not count the other parts: a checkpoint is shared by methods that differ in parts which did
        nothing yet.
        """
        states = {}
        for number, name, part in self._numbered():
            state = part.state_dict()
            if state:
                states[f"{number}:{name}"] = state
        return states

    def load_state_dict(self, state: State) -> None:
        """Restore each part. A part that the checkpoint does not know keeps its initial state."""
        for number, name, part in self._numbered():
            # absent where a part had no state, or where the checkpoint is one of a method without it
            if f"{number}:{name}" in state:
                part.load_state_dict(state[f"{number}:{name}"])

    def _numbered(self) -> Iterator[tuple[int, str, Method]]:
        seen: Counter[str] = Counter()
        for name, part in self.parts:
            yield seen[name], name, part
            seen[name] += 1

    def collect_diagnostics(self, task_id: int) -> dict[str, float | list[Any]]:
        """The numbers of every part that took part in a task, as `part/number`."""
        diagnostics = {}
        for name, part in self.parts:
            # a part that has not begun would show the numbers of an empty state
            if _cache_fields(part, task_id) is None:
                continue
            for key, value in part.diagnostics().items():
                diagnostics[f"{name}/{key}"] = value
        return diagnostics


def _cache_fields(part: Method, task_id: int) -> Mapping[str, Any] | None:
    """A part's own cache fields; without any, all its settings count from the start."""
    if isinstance(part, CacheFields):
        return part.cache_fields(task_id)
    return dict(part.settings.model_dump())
