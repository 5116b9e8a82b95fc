"""Every architecture trains two tasks by full fine-tuning, LoRA and MIGU, or is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.experiment import RunConfig
from orchestrator.config.model import ModelConfig
from orchestrator.errors import UserError
from orchestrator.models.families import load_family
from orchestrator.models.family import Family
from orchestrator.models.source import find_model
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.orchestrator.models.architectures import ARCHITECTURES, save_model
from tests.orchestrator.models.likelihoods import assert_losses_are_the_loops

# one of each kind that needed care here; the others are like them or like the built-in models
QUICK = ("GPT2LMHeadModel", "OPTForCausalLM", "MambaForCausalLM", "AlbertModel", "DistilBertModel")
REFUSED = {
    ("Qwen3MoeForCausalLM", "ft+migu"): "experts.gate_up_proj holds several experts in one tensor",
    # its weight is taken without running the layer, so no output says how large its units are
    ("MambaForCausalLM", "ft+migu"): "dt_proj' does not run as a layer",
}


def sequence_on(model: str, out: Path, method: Any, **training: Any) -> SequencePlan:
    """Two steps on each of two tasks."""
    config = RunConfig.model_validate(
        {
            "name": "architectures",
            "model": {"name": model, "max_source": 40, "max_target": 6},
            "streams": [{"name": "embedded", "first": 2, "max_train": 8, "max_test": 4}],
            "methods": [method],
            "training": {"lr": 1e-2, "global_batch": 4, **training},
            "out": str(out),
        }
    )
    (sequence,) = plan(config)
    return sequence


def _cases() -> list[Any]:
    cases = []
    for architecture in ARCHITECTURES:
        for method in ("ft", "lora", "ft+migu"):
            marks: list[Any] = []
            if architecture not in QUICK:
                marks.append(pytest.mark.slow)
            cases.append(pytest.param(architecture, method, marks=marks))
    return cases


@pytest.mark.parametrize(("architecture", "method"), _cases())
def test_an_architecture_trains_or_is_refused_at_the_door(architecture: str, method: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", architecture)
    reason = REFUSED.get((architecture, method))
    if reason:
        with pytest.raises(UserError) as refused:
            sequence_on(model, tmp_path / "out", method)
        assert reason in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    sequence = sequence_on(model, tmp_path / "out", method)
    run_sequence(sequence, evaluate=False)
    store = Store(tmp_path / "out")
    first, second = (store.load(key).weights for key in sequence.keys[1:])
    assert first
    # embeddings of words that no text has, and A while B is zero, may stay
    moved = [name for name in first if not torch.equal(first[name], second[name])]
    assert len(moved) > len(first) / 3


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "BartForConditionalGeneration"])
def test_losses_of_answers_with_learned_positions_too(architecture: str, tmp_path: Path) -> None:
    """Positions count from a text's first token, whatever padding comes before it."""
    assert_losses_are_the_loops(family_in(tmp_path, architecture))


def test_a_model_with_a_state_alone_has_no_losses_of_answers(tmp_path: Path) -> None:
    family = family_in(tmp_path, "MambaForCausalLM")
    with pytest.raises(ValueError, match="keeps a state of what it has read and no keys and values"):
        family.read([{"source": [5, 6], "target": [2], "class_index": 0}], torch.device("cpu"))


def family_in(folder: Path, architecture: str) -> Family:
    config = ModelConfig(name=save_model(folder, architecture), max_source=40, max_target=6)
    return load_family(find_model(config), config, ("yes", "no"), seed=0)


@pytest.mark.parametrize("importance", ["output", "weight"])
def test_columns_are_the_units_of_gpt2(importance: str, tmp_path: Path) -> None:
    """One step: the columns that stay are the floor(0.7 d_out) with the smallest mean |y|, worked out by hand here."""
    model = save_model(tmp_path / "model", "GPT2LMHeadModel", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    migu = {"name": "migu", "ratio": 0.3, "mask_first_task": True, "freeze_masked": True, "importance": importance}
    method = {"tuning": "full", "plugins": [migu]}
    sequence = sequence_on(model, tmp_path / "out", method, global_batch=8, weight_decay=0.0)
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load_initial()
    layers = {f"transformer.h.{block}.{name}" for block in (0, 1) for name in ("attn.c_attn", "mlp.c_fc", "mlp.c_proj")}
    sizes: dict[str, torch.Tensor] = {}
    module = learner.family.module
    (batch,) = learner.batches(learner.examples(0))
    handles = []
    for name in layers:

        def note(layer: Any, inputs: Any, output: torch.Tensor, name: str = name) -> None:
            sizes[name] = (output.detach().abs() * batch.source.mask[..., None]).sum((0, 1))

        handles.append(module.get_submodule(name).register_forward_hook(note))
    learner.forward(module, batch)
    for handle in handles:
        handle.remove()
    before = {name: module.get_submodule(name).weight.detach().clone() for name in layers}
    train_task(learner, 0, lambda event: None)
    for name in layers:
        weight = module.get_submodule(name).weight.detach()
        d_out = weight.shape[1]
        size = sizes[name] if importance == "output" else before[name].abs().mean(0)
        smallest = set(size.argsort()[: int(0.7 * d_out + 1e-9)].tolist())
        stayed = {unit for unit in range(d_out) if torch.equal(weight[:, unit], before[name][:, unit])}
        assert stayed == smallest, name
