"""The chat vector against weights read from the models' files, on each family, beneath adapters and with annealing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from methods.merging.chat_vector import cosine, plain_name
from orchestrator.errors import UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from tests.conftest import FAMILIES

TWO_TASKS = {"first": 2, "max_train": 16}
MakeLearner = Callable[..., Learner]
MakeSequence = Callable[..., SequencePlan]


def save(learner: Learner, folder: Path, seed: int) -> Path:
    """The learner's model with other weights, as `save_pretrained` writes it."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.family.module.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=rng))
    learner.family.module.save_pretrained(folder)
    learner.family.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folders(learner_of: MakeLearner, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes a base and an instruct model's folder."""

    def make(model: str) -> dict[str, str]:
        learner = learner_of(out="models", model=model)
        return {which: str(save(learner, tmp_path / which, seed)) for seed, which in enumerate(("base", "instruct"))}

    return make


def vector(folders: dict[str, str]) -> dict[str, Tensor]:
    """theta_inst - theta_base from the files, without the classifier's head."""
    base, instruct = (load_file(Path(folders[which]) / "model.safetensors") for which in ("base", "instruct"))
    return {name: instruct[name] - base[name] for name in base if not name.startswith("classifier")}


def with_vector(folders: dict[str, str], **settings: Any) -> dict[str, Any]:
    return {"plugins": [{"name": "chat_vector", **folders, **settings}]}


def stored(sequence: SequencePlan, tasks_seen: int) -> State:
    return Store(Path(sequence.out)).load(sequence.keys[tasks_seen], resume_state=True)


def assert_equal(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("model", FAMILIES)
def test_it_is_scored_and_training_goes_on_without_it(
    model: str, folders: Callable[..., dict[str, str]], sequence_of: MakeSequence
) -> None:
    """Stopped after each task, whose scores are computed in between: what is trained is plain training's bit for bit."""
    named = folders(model)
    change = vector(named)
    assert len(change) > 10 and all(tensor.any() for tensor in change.values())
    plain = sequence_of("plain", model=model, stream=TWO_TASKS)
    sequence = sequence_of("added", model=model, stream=TWO_TASKS, methods=[{**with_vector(named, scale=0.5)}])
    run_sequence(plain, evaluate=False)
    run_sequence(sequence, until=1)
    run_sequence(sequence)
    for tasks_seen in (1, 2):
        trained = stored(plain, tasks_seen).weights
        found = stored(sequence, tasks_seen)
        assert found.resume_state
        assert_equal(found.resume_state.weights, trained)
        expected = {name: w + 0.5 * change[name] if name in change else w for name, w in trained.items()}
        assert_equal(found.weights, expected)
        assert found.method == {}


def test_the_same_process_goes_on_without_it_too(
    folders: Callable[..., dict[str, str]], sequence_of: MakeSequence
) -> None:
    """Also beneath an adapter, where scoring puts the vector into layers that no training writes."""
    named = folders("tiny-t5")
    change = vector(named)
    plain = sequence_of("plain", stream=TWO_TASKS, methods=[{"tuning": "lora"}])
    sequence = sequence_of("added", stream=TWO_TASKS, methods=[{"tuning": "lora", **with_vector(named)}])
    run_sequence(plain)
    run_sequence(sequence)
    trained, found = stored(plain, 2).weights, stored(sequence, 2)
    assert_equal({name: found.weights[name] for name in trained}, trained)
    beneath = found.weights.keys() - trained.keys()
    assert {plain_name(name) for name in beneath} == change.keys()
    assert found.resume_state
    assert found.resume_state.weights.keys() == found.weights.keys()
    for name in beneath:
        before = found.resume_state.weights[name]
        assert torch.equal(found.weights[name], before + change[plain_name(name)])
    assert "cosine" not in str(found.history["diagnostics"])


def test_it_goes_with_annealing(folders: Callable[..., dict[str, str]], sequence_of: MakeSequence) -> None:
    """The annealed weights are scored with the vector; the state from before the annealing is plain training's."""
    named = folders("tiny-t5")
    change = vector(named)
    annealed = {"stream": TWO_TASKS, "training": {"schedule": "infinite", "budget": {"steps": 2}}}
    plain = sequence_of("plain", **annealed)
    sequence = sequence_of("added", **annealed, methods=[with_vector(named)])
    for each in (plain, sequence):
        run_sequence(each, evaluate=False)
    expected, found = stored(plain, 2), stored(sequence, 2)
    assert found.resume_state and expected.resume_state
    assert_equal(found.resume_state.weights, expected.resume_state.weights)
    assert found.resume_state.optimizer_state.keys() == expected.resume_state.optimizer_state.keys()
    assert_equal(found.weights, {name: w + change[name] for name, w in expected.weights.items()})
    assert not torch.equal(expected.weights["shared.weight"], expected.resume_state.weights["shared.weight"])


def test_the_cosine_by_hand() -> None:
    one = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    # 3 * 1 + 4 * (-2) = -5; lengths 5 and 3
    other = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[-2.0]]), "not trained": torch.ones(1)}
    assert cosine(one, other) == pytest.approx(-1 / 3)
    assert cosine(one, {name: 0 * tensor for name, tensor in one.items()}) == 0.0


def test_the_cosine_is_between_what_training_and_instruction_did(
    folders: Callable[..., dict[str, str]], sequence_of: MakeSequence
) -> None:
    """From the model before training where no base is named; the vector too is then measured from it."""
    named = folders("tiny-bert")
    base, instruct = (load_file(Path(named[which]) / "model.safetensors") for which in ("base", "instruct"))
    for settings in (named, {"instruct": named["instruct"]}):
        sequence = sequence_of("out", model="tiny-bert", stream=TWO_TASKS, methods=[with_vector(settings)])
        run_sequence(sequence, evaluate=False)
        found = stored(sequence, 1)
        assert found.resume_state
        start = base
        if "base" not in settings:
            learner = Learner(sequence, sequence.open_stream(), Parallel())
            learner.load_initial()
            start = {name: weight.detach() for name, weight in learner.weights().items()}
        names = [name for name in start if not name.startswith("classifier")]
        moved = torch.cat([(found.resume_state.weights[n] - start[n]).flatten() for n in names]).double()
        added = torch.cat([(instruct[n] - start[n]).flatten() for n in names]).double()
        expected = float(moved @ added / (moved.norm() * added.norm()))
        assert found.history["diagnostics"]["chat_vector/cosine"] == pytest.approx(expected, abs=1e-6)
        assert abs(expected) > 1e-3


def test_bad_models_are_refused_at_the_door(
    folders: Callable[..., dict[str, str]], learner_of: MakeLearner, sequence_of: MakeSequence, tmp_path: Path
) -> None:
    named = folders("tiny-t5")
    wide = learner_of(out="wide", overrides={"d_ff": 80})
    save(wide, tmp_path / "wide", 0)
    deep = learner_of(out="deep", overrides={"num_layers": 3})
    save(deep, tmp_path / "deep", 0)
    shallow = learner_of(out="shallow", overrides={"num_layers": 1})
    save(shallow, tmp_path / "shallow", 0)
    save(learner_of(out="llama", model="tiny-llama"), tmp_path / "llama", 0)
    missing = str(tmp_path / "missing")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, r"chat_vector\.instruct: give the instruct model's local folder or hub id$"),
        ({"instruct": missing}, r"chat_vector\.instruct: model folder '.*/missing' does not exist$"),
        ({**named, "base": missing}, r"chat_vector\.base: model folder '.*/missing' does not exist$"),
        (
            {"instruct": str(tmp_path / "wide"), "base": str(tmp_path / "wide")},
            r"chat_vector\.instruct: parameter '.*wi.*' has the shape \[80, 32\], and \[64, 32\] in the model that is",
        ),
        ({**named, "base": str(tmp_path / "wide")}, r"chat_vector\.base: parameter '.*wi.*' has the shape \[80, 32\]"),
        (
            {"instruct": str(tmp_path / "deep"), "base": str(tmp_path / "deep")},
            r"chat_vector\.instruct: the model that is trained has no parameter 'encoder\.block\.2\.",
        ),
        ({**named, "base": str(tmp_path / "shallow")}, "base model alone has a parameter 'encoder.block.1."),
        ({"instruct": str(tmp_path / "llama")}, "alone has a parameter"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message) as raised:
            sequence_of(methods=[with_vector(settings)])
        assert "\n" not in str(raised.value)


def test_models_are_known_by_their_content(
    folders: Callable[..., dict[str, str]], learner_of: MakeLearner, sequence_of: MakeSequence, tmp_path: Path
) -> None:
    named = folders("tiny-t5")
    first = sequence_of(methods=[with_vector(named)]).keys
    moved = {which: shutil.copytree(folder, f"{folder}-moved") for which, folder in named.items()}
    assert sequence_of(methods=[with_vector(moved)]).keys == first, "the same models elsewhere"
    assert set(sequence_of(methods=[with_vector(named, scale=0.5)]).keys[1:]).isdisjoint(first)
    save(learner_of(out="other"), tmp_path / "other", 9)
    for which in named:
        keys = sequence_of(methods=[with_vector({**named, which: str(tmp_path / "other")})]).keys
        assert set(keys[1:]).isdisjoint(first)
        assert keys[0] == first[0], "before training nothing is added"
