"""What every registered method must do, with no exception for any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import METHODS, PRESETS, TuningMethod, method_spec
from orchestrator.errors import UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved, Event
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES

# Where the defaults would only take long
SHORT: dict[str, dict[str, Any]] = {"lfpt5": {"tokens": 10, "samples": 4, "max_text": 16, "max_answer": 4}}


def spec(name: str) -> dict[str, Any]:
    """A method that uses the registered part `name`."""
    part = {"name": name, **SHORT.get(name, {})}
    return (
        {"name": name, "tuning": part} if issubclass(METHODS[name], TuningMethod) else {"name": name, "plugins": [part]}
    )


def weights(sequence: SequencePlan, row: int) -> Mapping[str, Tensor]:
    return Store(Path(sequence.out)).load(sequence.keys[row]).weights


def untrained(learner: Learner, tasks: int) -> Mapping[str, Tensor]:
    """The weights of a model with the structure after so many tasks."""
    module = learner.family.module
    learner.stack.grow(module, tasks)
    return {n: w.detach().clone() for n, w in learner.weights().items()}


def assert_equal(one: Any, two: Any) -> None:
    """Of nested states."""
    if isinstance(one, Mapping):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    else:
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two


# Each part on every family, for which the whole suite has the time
ON_FAMILIES = [pytest.param(model, marks=[pytest.mark.slow] if model != "tiny-t5" else []) for model in FAMILIES]
CASES = [pytest.param(name, *family.values, marks=family.marks) for name, method in METHODS.items() for family in ON_FAMILIES
         if not (method.card.requires_generation and family.values == ("tiny-bert",))]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.card.requires_generation])
def test_what_needs_a_generating_model_refuses_an_encoder(name: str, sequence_of: Callable[..., SequencePlan]) -> None:
    with pytest.raises(UserError, match="needs a model that generates"):
        sequence_of(model="tiny-bert", methods=[spec(name)])


@pytest.mark.parametrize(("name", "model"), CASES)
def test_it_trains_and_resuming_equals_not_stopping(
    name: str, model: str, sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    few = {"stream": {"max_train": 16, "first": 3}, "training": {"micro_batch": 4}}
    whole = sequence_of("whole", model=model, methods=[spec(name)], **few)
    run_sequence(whole, evaluate=False)
    for before, row in ((0, 1), (1, 3)):
        start = {
            **untrained(learner_of(model=model, methods=[spec(name)]), row),
            **(weights(whole, 1) if before else {}),
        }
        assert all(torch.isfinite(w).all() for w in weights(whole, row).values())
        assert start.keys() == weights(whole, row).keys()
        moved = [n for n, w in weights(whole, row).items() if not torch.equal(w, start[n])]
        trains = method_spec(spec(name)).trains_by_gradient  # else it learns in its state alone
        assert bool(moved) == trains, f"what training moved from row {before} to row {row}"
        assert model != "tiny-bert" or not trains or "classifier.weight" in moved, (
            "a task head trains under every tuning method"
        )

    stopped = sequence_of("stopped", model=model, methods=[spec(name)], **few)
    assert stopped.keys == whole.keys

    class Stop(BaseException):
        """As a signal would come."""

    def stop_after_the_second_task(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.task_id == 1:
            raise Stop

    with pytest.raises(Stop):
        run_sequence(stopped, stop_after_the_second_task, evaluate=False)
    assert not Store(Path(stopped.out)).has(stopped.keys[3])
    run_sequence(stopped)  # scoring every state on every task, trained or not, changes nothing
    for row in (1, 2, 3):
        assert weights(whole, row).keys() == weights(stopped, row).keys()
        for n, w in weights(whole, row).items():
            assert torch.equal(w, weights(stopped, row)[n]), f"{n} differs after task {row}"
        assert_equal(*(Store(Path(s.out)).load(s.keys[row]).method for s in (whole, stopped)))


# Settings with which a plug-in does nothing, and what makes it act all the same in two steps of the second task
STRENGTH_ZERO: dict[str, dict[str, Any]] = {
    "migu": {"ratio": 1.0, "mask_first_task": True},
    "random_mask": {"ratio": 1.0, "mask_first_task": True},
    "replay": {"fraction": 0.0},
    "conpet": {"fraction": 0.0},
    "agem": {"fraction": 0.0},
    "derpp": {"alpha": 0.0, "beta": 0.0},
    "merge": {"rule": "ema", "weight": 1.0},
    "ewc": {"strength": 0.0},
    "mas": {"strength": 0.0},
    "l2": {"strength": 0.0},
    "lwf": {"strength": 0.0},
    "refresh": {"delta": 0.0},
    "projection": {"epsilon": 0.0},
}
STRONG: dict[str, dict[str, Any]] = {
    "migu": {"ratio": 0.3},
    "random_mask": {"ratio": 0.3},
    "replay": {"fraction": 0.5},
    "conpet": {"fraction": 0.5},
    "agem": {"fraction": 0.5, "margin": 2.0},
    "derpp": {"alpha": 1.0, "beta": 1.0},
    "merge": {"weight": 0.3},
    "ewc": {"strength": 1e6},
    "mas": {"strength": 10.0},
    "l2": {"strength": 100.0},
    "lwf": {"strength": 10.0},
    "refresh": {"delta": 1e-3},
    "projection": {"epsilon": 0.9},
}


def test_every_plugin_says_where_its_strength_is_zero() -> None:
    assert (
        set(STRENGTH_ZERO)
        == set(STRONG)
        == {name for name, method in METHODS.items() if not issubclass(method, TuningMethod)}
    )


@pytest.mark.parametrize("model", ON_FAMILIES)
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", STRENGTH_ZERO)
def test_strength_zero_is_plain_training(
    name: str, tuning: str, model: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    tuning_part = {"name": tuning}
    plain = sequence_of("plain", model=model, methods=[{"tuning": tuning_part}], stream={"max_train": 16, "first": 3})
    part = {"name": name, **STRENGTH_ZERO[name]}
    zero = sequence_of(
        "zero", model=model, methods=[{"tuning": tuning_part, "plugins": [part]}], stream={"max_train": 16, "first": 3}
    )
    part = {**part, **STRONG[name]}
    strong = sequence_of(
        "strong",
        model=model,
        methods=[{"tuning": tuning_part, "plugins": [part]}],
        stream={"max_train": 16, "first": 3},
    )
    for sequence in (plain, zero, strong):
        run_sequence(sequence, evaluate=False)
    assert set(plain.keys[2:]).isdisjoint(zero.keys[2:]), (
        "they would share checkpoints, and the test would prove nothing"
    )
    differs = False
    for n, w in weights(plain, 2).items():
        assert torch.isfinite(w).all()
        assert torch.equal(w, weights(zero, 2)[n]), n
        differs |= not torch.equal(w, weights(strong, 2)[n])
    assert differs


@pytest.mark.parametrize("name", STRONG)
def test_it_trains_a_sentence_encoder(name: str, learner_of: Callable[..., Learner]) -> None:
    """Whose batches hold the options too, which belong to no example."""
    part = {"name": name, **STRONG[name]}
    method = {"tuning": "full", "plugins": [part]}
    learner = learner_of(
        model="tiny-bert", scoring="similarity", methods=[method], stream={"max_train": 16, "first": 3}
    )
    for task in range(2):
        train_task(learner, task, lambda event: None)
    assert all(torch.isfinite(p).all() for p in learner.family.module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_state_is_tensors_and_plain_values(name: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[spec(name)], stream={"max_train": 8})
    train_task(learner, 0, lambda event: None)

    def check(value: object) -> None:
        if isinstance(value, Mapping):
            for item in value.values():
                check(item)
        else:
            assert isinstance(value, Tensor | int | float | str | bool | list | None)

    check(learner.stack.state_dict())
    learner.stack.load_state_dict(learner.stack.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_what_changes_the_weights_after_a_task_says_so(name: str, learner_of: Callable[..., Learner]) -> None:
    """`schedule: infinite` takes what is not said to change them."""
    learner = learner_of(methods=[spec(name)], stream={"max_train": 8, "first": 3})
    for task in range(2):
        found: list[bool] = []

        def after_task(model: Any, task_id: int, batches: Any, found: list[bool] = found) -> None:
            before = {n: w.detach().clone() for n, w in learner.weights().items()}
            type(learner.stack).after_task(learner.stack, model, task_id, batches)
            found.append(all(torch.equal(w, before[n]) for n, w in learner.weights().items()))

        kept = all(not part.card.per_task_weights for _, part in learner.stack.parts)
        if kept:  # else the weights are not the same ones before and after
            learner.stack.after_task = after_task  # type: ignore[method-assign]
        train_task(learner, task, lambda event: None)
    says = any(part.card.modifies_weights_after_task for _, part in learner.stack.parts)
    assert not kept or found == [not says]


@pytest.mark.parametrize("name", METHODS)
def test_it_is_described(name: str) -> None:
    method = METHODS[name]
    assert method.card.summary
    assert method.__doc__
    assert name.replace("_", "") == method.__name__.lower()
    assert method.card.memory or not issubclass(method, TuningMethod)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_search_tries_is_allowed(name: str) -> None:
    method = METHODS[name]
    assert set(method.card.needs) <= {"boundaries", "old data", "task labels"}
    for setting, values in method.card.space.items():
        for value in values:
            assert getattr(method.Settings.model_validate({setting: value}), setting) == value
    assert method.card.space or not method.Settings.model_fields, "nothing to search"


def test_a_stack_tells_every_parts_numbers(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": "full", "plugins": ["ewc", "projection", "migu"]}])
    train_task(learner, 0, lambda event: None)
    assert not any(name.startswith("migu") for name in learner.stack.collect_diagnostics(0)), (
        "the first task is plain training's"
    )
    trained = train_task(learner, 1, lambda event: None)
    found = learner.stack.collect_diagnostics(1)
    assert found == trained.history["diagnostics"]
    of_migu = {f"migu/{name}" for name in ("kept_share", "overlap", "moved_though_masked", "update_norm")}
    assert set(found) == {"projection/leakage", "projection/spanned_share"} | of_migu
    assert all(isinstance(value, int | float | list) for value in found.values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_methods(name: str) -> None:
    assert method_spec(name).label == name


@pytest.mark.parametrize(("first", "second"), [(["ewc"], ["migu", "ewc"]), (["derpp"], ["agem", "derpp"])])
def test_a_shared_checkpoint_gives_each_part_its_own_state(
    first: list[str], second: list[str], sequence_of: Callable[..., SequencePlan]
) -> None:
    """Whoever made the first task's state: parts that did nothing in it may stand before those that have a state."""
    few = {"stream": {"max_train": 16, "first": 2}}
    made, shared, alone = (
        sequence_of(out, methods=[{"tuning": "full", "plugins": parts}], **few)
        for out, parts in (("both", first), ("both", second), ("alone", second))
    )
    for sequence in (made, shared, alone):
        run_sequence(sequence, evaluate=False)
    assert shared.keys == alone.keys
    assert made.keys[1] == shared.keys[1], "else nothing is shared, and the test would prove nothing"
    for n, w in weights(alone, 2).items():
        assert torch.equal(w, weights(shared, 2)[n]), n
