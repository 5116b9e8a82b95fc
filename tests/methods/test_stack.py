"""The stack: parts act in the given order, and each has its own place in keys, states and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import Batch, CacheFields, Context, Cost, DataPolicy, Example, ExtraPasses, Method, Settings, Stack
from methods.base import State, TuningMethod
from tests.methods import toy

CONTEXT = Context(0)


class NumberSettings(Settings):
    number: float = 1.0


class Tuning(TuningMethod):
    """Trains all."""

    Settings = NumberSettings


class Notes(Method):
    """Writes down each of its hooks; multiplies the loss by its number and adds it to the batch's weight."""

    Settings = NumberSettings

    def __init__(self, number: float, log: list[str]) -> None:
        super().__init__(NumberSettings(number=number), CONTEXT)
        self.log = log
        self.loaded: State | None = None

    def note(self, hook: str) -> None:
        self.log.append(f"{hook} {self.settings.number:g}")

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        self.note("check")

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.note(f"before task {task_id}")

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.note("before step")

    def on_batch(self, batch: Batch) -> Batch:
        return batch.replace(loss_weight=10 * batch.loss_weight + self.settings.number)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        return 10 * loss + self.settings.number

    def add_gradients(self, model: nn.Module) -> None:
        self.note("add gradients")

    def before_optimizer_step(self, model: nn.Module) -> None:
        self.note("before optimizer")

    def after_optimizer_step(self, model: nn.Module) -> None:
        self.note("after optimizer")

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.note(f"after task {task_id}")

    def state_dict(self) -> State:
        return {"number": self.settings.number}

    def load_state_dict(self, state: State) -> None:
        self.loaded = state

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        return {"number": self.settings.number}


class FromSecond(CacheFields, Notes):
    """Does nothing in a first task."""

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        return {"since": 1} if task_id > 0 else None


class Adds(DataPolicy, Cost, Notes):
    """Adds its number at the end of whatever it is given."""

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        return [*chosen, {"number": self.settings.number}, *old(task_id - 1)]

    def num_new_examples(self, task_id: int, size: int) -> int:
        return size - int(self.settings.number)

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        return [*chosen, {"number": self.settings.number * step}]

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        return ExtraPasses(self.settings.number / size, task_id)


def stack_of(*plugins: tuple[str, Method], tuning: TuningMethod | None = None) -> Stack:
    return Stack(tuning or Tuning(NumberSettings(), CONTEXT), plugins, "mine")


def test_hooks_run_in_the_given_order() -> None:
    log: list[str] = []
    stack = stack_of(("a", Notes(1, log)), ("b", Notes(2, log)))
    model = toy.Toy(toy.WEIGHT)
    batch = toy.batch()
    stack.check_model(model, batch)
    stack.before_task(model, 3, [])
    stack.before_step(model, [batch])
    stack.add_gradients(model)
    stack.before_optimizer_step(model)
    stack.after_optimizer_step(model)
    stack.after_task(model, 3, [])
    hooks = (
        "check",
        "before task 3",
        "before step",
        "add gradients",
        "before optimizer",
        "after optimizer",
        "after task 3",
    )
    expected = []
    for hook in hooks:
        expected += [f"{hook} 1", f"{hook} 2"]
    assert log == expected


def test_each_part_gets_what_the_one_before_it_returned() -> None:
    """Digits are appended in order: 1, and then 2."""
    stack = stack_of(("a", Notes(1, [])), ("b", Notes(2, [])))
    assert stack.on_batch(toy.batch(loss_weight=7.0)).loss_weight == 712
    loss = stack.after_forward(toy.Toy(toy.WEIGHT), toy.batch(), torch.zeros(1), torch.tensor(7.0))
    assert loss.item() == 712


def test_data_policies_act_in_turn_and_the_smallest_share_of_new_examples_counts() -> None:
    stack = stack_of(("a", Adds(1, [])), ("none", Notes(9, [])), ("b", Adds(3, [])))
    old = {0: [{"old": 0}]}
    first, second = {"number": 1}, {"number": 3}
    assert stack.training_set(1, [{"new": 1}], old.__getitem__) == [{"new": 1}, first, {"old": 0}, second, {"old": 0}]
    assert stack.num_new_examples(1, 8) == 5
    assert stack.compose_batch(1, 2, [{"new": 1}]) == [{"new": 1}, {"number": 2}, {"number": 6}]
    plain = stack_of(("none", Notes(9, [])))
    assert plain.num_new_examples(1, 8) == 8
    assert plain.compose_batch(1, 2, [first]) == plain.training_set(1, [first], old.__getitem__) == [first]


def test_passes_are_added_up() -> None:
    stack = stack_of(("a", Adds(1, [])), ("none", Notes(9, [])), ("b", Adds(3, [])))
    assert stack.extra_passes(2, 8) == (0.5, 4)
    assert stack_of().extra_passes(2, 8) == (0, 0)


def test_a_part_that_does_nothing_yet_is_in_no_key_and_shows_no_numbers() -> None:
    late = stack_of(("a", Notes(1, [])), ("late", FromSecond(2, [])))
    without = stack_of(("a", Notes(1, [])))

    def named(stack: Stack, task_id: int) -> list[tuple[str, Any]]:
        parts = stack.cache_fields(task_id)["parts"]
        return [(part["name"], part.get("number", part.get("since"))) for part in parts]

    assert named(late, 0) == [("mine", 1.0), ("a", 1.0)]
    assert late.cache_fields(0) == without.cache_fields(0)
    assert named(late, 1) == [("mine", 1.0), ("a", 1.0), ("late", 1)]
    assert late.collect_diagnostics(0) == {"a/number": 1}
    assert late.collect_diagnostics(1) == {"a/number": 1, "late/number": 2}


def test_before_training_the_tuning_method_alone_decides() -> None:
    class Adapted(CacheFields, Tuning):
        """Of its settings none is in the untrained model."""

        def model_cache_fields(self) -> Mapping[str, Any]:
            return {}

    plain = stack_of(("a", Notes(1, [])))
    assert plain.initial_cache_fields() == stack_of().initial_cache_fields()
    assert plain.initial_cache_fields().items() >= {"name": "mine", "settings": {"number": 1.0}}.items()
    adapted = stack_of(tuning=Adapted(NumberSettings(), CONTEXT))
    assert adapted.initial_cache_fields()["settings"] == {}


def test_states_are_numbered_among_parts_of_one_name() -> None:
    class Stateless(Notes):
        """Has nothing to keep."""

        def state_dict(self) -> State:
            return {}

    parts = [Notes(1, []), Notes(2, []), Stateless(3, []), Notes(4, [])]
    stack = stack_of(("a", parts[0]), ("b", parts[1]), ("a", parts[2]), ("a", parts[3]))
    state = stack.state_dict()
    assert state == {"0:a": {"number": 1}, "0:b": {"number": 2}, "2:a": {"number": 4}}
    # a checkpoint of a method without the second part
    del state["0:b"]
    stack.load_state_dict(state)
    assert [part.loaded for part in parts] == [{"number": 1}, None, None, {"number": 4}]


@pytest.mark.parametrize("has_cost", [False, True])
def test_what_trains_is_said_by_the_tuning_method_or_else_by_the_model(has_cost: bool) -> None:
    class Prompts(Cost, Tuning):
        """Trains none of the model's own weights."""

        def trains(self, model: nn.Module) -> dict[str, Tensor]:
            return {"prompt": torch.zeros(2)}

        def unread(self, model: nn.Module) -> dict[str, Tensor]:
            return {"idle": torch.zeros(1)}

        def added_tokens(self, task_id: int) -> int:
            return 5 * task_id

    settings = NumberSettings()
    stack = stack_of(tuning=Prompts(settings, CONTEXT) if has_cost else Tuning(settings, CONTEXT))
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert list(stack.trains(model)) == (["prompt"] if has_cost else ["weight"])
    assert list(stack.unread(model)) == (["idle"] if has_cost else [])
    assert stack.added_tokens(2) == (10 if has_cost else 0)
    assert list(stack.weights(model)) == ["weight"]
