"""Blocks of a transformer: which they are; that what is computed again is the same and not kept; compiled; in half the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from methods import trainable
from orchestrator.models.blocks import blocks_of, halve_frozen
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES

MakeLearner = Callable[..., Learner]


def test_blocks_are_the_members_of_the_outermost_lists() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "vocab_size": 20, "num_decoder_layers": 3}
    model = T5ForConditionalGeneration(T5Config(**sizes, num_layers=2))
    # a T5's block has a list of its own inside
    assert list(blocks_of(model)) == [*model.encoder.block, *model.decoder.block]


def test_an_empty_list_hides_nothing() -> None:
    layers = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
    model = torch.nn.ModuleDict({"none": torch.nn.ModuleList(), "nonesuch": layers})
    assert list(blocks_of(model)) == list(layers)


def trained(learner: Learner) -> tuple[dict[str, torch.Tensor], int]:
    """The weights after a task, and how many numbers its forward passes kept for the backward passes."""
    kept = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        train_task(learner, 0, lambda event: None)
    return {name: p.detach() for name, p in trainable(learner.family.module).items()}, kept


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", [*FAMILIES, "similarity"])
@pytest.mark.parametrize("method", ["ft+migu", "lora+migu"])
def test_what_is_computed_again_is_the_same_and_is_not_kept(method: str, model: str, learner_of: MakeLearner) -> None:
    changes: dict[str, Any] = {"model": model}
    if model == "similarity":
        changes = {"model": "tiny-bert", "scoring": "similarity"}
    migu = {"name": "migu", "mask_first_task": True}
    changes["methods"] = [{"tuning": {"ft+migu": "full", "lora+migu": "lora"}[method], "plugins": [migu]}]
    plain, kept = trained(learner_of(**changes))
    again, kept_again = trained(learner_of(**changes, training={"checkpoint_activations": True}))
    assert kept_again < 0.9 * kept
    for name, weight in plain.items():
        # softmax cancels this bias: its gradient is rounding, which Adam makes large
        if not name.endswith("key.bias"):
            torch.testing.assert_close(again[name], weight, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.slow
def test_compiled_blocks_train_alike(learner_of: MakeLearner) -> None:
    """On the family that compiles fastest: a T5 takes a minute."""
    changes: dict[str, Any] = {"model": "tiny-bert", "methods": ["ft+migu"], "stream": {"max_train": 8}}
    plain, _ = trained(learner_of(**changes))
    learner = learner_of(**changes, training={"compile": True})
    assert all(block._compiled_call_impl is not None for block in blocks_of(learner.family.module))
    for name, weight in trained(learner)[0].items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weight, plain[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_frozen_base_takes_half_the_memory(model: str, learner_of: MakeLearner) -> None:
    learner = learner_of(model=model, methods=["lora"], base="bf16", precision="bf16")
    before = {}
    for name, parameter in learner.family.module.named_parameters():
        # adapters and a head go on in float32, whose small steps bfloat16 would swallow
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
        before[name] = parameter.detach().clone()
    train_task(learner, 0, lambda event: None)
    moved = {n for n, p in learner.family.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved and moved <= set(trainable(learner.family.module))


def test_the_frozen_are_rounded_and_without_values_only_made_room_for() -> None:
    model = torch.nn.Linear(1, 2)
    model.weight.requires_grad_(False)
    exact = model.weight.clone()
    halve_frozen(model)
    assert torch.equal(model.weight, exact.to(torch.bfloat16))
    assert model.bias.dtype == torch.float32
    model.weight.data = model.weight.float()
    halve_frozen(model, has_values=False)
    assert (model.weight.dtype, model.weight.shape) == (torch.bfloat16, (2, 1))
    with pytest.raises(ValueError, match=r"model.base: 'bf16' is for weights that the tuning method freezes"):
        halve_frozen(torch.nn.Linear(1, 1))
