"""What every registered method must do, with no exception for any of them: the contract that ships with the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from methods import METHODS, PRESETS, TuningMethod, method_spec
from orchestrator.contract.checks import CHECKS, NotApplicable
from orchestrator.contract.subject import Subject, usual_model
from orchestrator.errors import UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES

PLUGINS = [name for name, method in METHODS.items() if not issubclass(method, TuningMethod)]
# what has nothing to do with the model is checked once
WITHOUT_MODEL = ("described", "search space")


def cases() -> list[object]:
    """Each part, check and family; for all but the usual one, and for cuts of the batch, the whole suite has the time."""
    found = []
    for name, method in METHODS.items():
        for model in FAMILIES:
            for check in CHECKS:
                if method.card.requires_generation and model == "tiny-bert":
                    continue
                if method.card.requires_head and model != "tiny-bert":
                    continue
                usual = usual_model(method.card)
                if check in WITHOUT_MODEL and model != usual:
                    continue
                slow = model != usual or check in ("accumulation", "strength zero on LoRA")
                found.append(pytest.param(name, model, check, marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.fixture(scope="module")
def subject_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Subject]:
    """Makes each subject once, so that its checks share its runs."""
    made: dict[tuple[str, str], Subject] = {}

    def make(name: str, model: str) -> Subject:
        if (name, model) not in made:
            made[name, model] = Subject(name, tmp_path_factory.mktemp(f"{name}-{model}"), model)
        return made[name, model]

    return make


@pytest.mark.parametrize(("name", "model", "check"), cases())
def test_it_keeps_the_contract(name: str, model: str, check: str, subject_of: Callable[[str, str], Subject]) -> None:
    subject = subject_of(name, model)
    try:
        CHECKS[check](subject)
    except NotApplicable:
        # no plug-in of ours may leave out where its strength is zero, but on LoRA those that LoRA has nothing for
        without_lora = check == "strength zero on LoRA" and subject.card.requires_own_weights
        assert subject.is_tuning or check == "says what it modifies" or without_lora


def test_a_class_has_the_name_that_it_goes_by() -> None:
    for name, method in METHODS.items():
        assert name.replace("_", "") == method.__name__.lower()


def weights(sequence: SequencePlan, tasks_seen: int) -> Mapping[str, Tensor]:
    return Store(Path(sequence.out)).load(sequence.keys[tasks_seen]).weights


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.card.requires_generation])
def test_what_needs_a_generating_model_refuses_an_encoder(
    name: str, sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="needs a model that generates"):
        sequence_of(model="tiny-bert", methods=[Subject(name, tmp_path).spec()])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.card.requires_head])
@pytest.mark.parametrize("model", [{"model": "tiny-t5"}, {"model": "tiny-bert", "scoring": "similarity"}])
def test_what_needs_a_head_refuses_a_model_without(
    name: str, model: dict[str, str], sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"needs an encoder with a classification head; 'tiny-.*' has none"):
        sequence_of(**model, methods=[Subject(name, tmp_path).spec()])


@pytest.mark.parametrize("name", PLUGINS)
def test_it_trains_a_sentence_encoder(name: str, learner_of: Callable[..., Learner]) -> None:
    """Whose batches hold the options too, which belong to no example."""
    part = {"name": name, **METHODS[name].card.quick, **METHODS[name].card.strong}
    method = {"tuning": "full", "plugins": [part]}
    learner = learner_of(
        model="tiny-bert", scoring="similarity", methods=[method], stream={"max_train": 16, "first": 3}
    )
    for task in range(2):
        train_task(learner, task, lambda event: None)
    assert all(torch.isfinite(p).all() for p in learner.family.module.parameters())


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
