"""O-LoRA: its penalties by hand, and two tasks of it against a second implementation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from methods import Context
from methods.adapters.adapter_per_task import adapters
from methods.adapters.olora import OLora, OLoraSettings, overlap, strength
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, GlobalBatch, assert_near, batches_of, mean_loss


def test_the_overlap_by_hand() -> None:
    old = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    new = torch.tensor([[1.0, 1.0, -1.0]], requires_grad=True)
    value = overlap(new, old)  # |1 - 2| + |1|
    assert value.item() == 2.0
    value.backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[-1.0, 1.0, -2.0]]  # -(1, 0, 2) + (0, 1, 0)
    assert overlap(torch.tensor([[2.0, 0.0, -1.0]]), old).item() == 0.0


def test_a_value_for_each_task() -> None:
    assert [strength(0.5, t) for t in range(3)] == [0.5, 0.5, 0.5]
    assert [strength((0.5, 5.0), t) for t in range(4)] == [0.5, 5.0, 5.0, 5.0]
    method = OLora(OLoraSettings(lambda1=(0.5, 0.7), lambda2=(0.0, 0.1)), Context(0))
    assert method.cache_fields(0)["lambda1"] == 0.0, "there is nothing to be orthogonal to"
    assert [method.cache_fields(t)["lambda1"] for t in (1, 2)] == [0.7, 0.7]
    assert [method.cache_fields(t)["lambda2"] for t in (0, 1, 2)] == [0.0, 0.1, 0.1]


def test_a_list_of_no_strengths_is_refused() -> None:
    with pytest.raises(ValidationError, match="lambda1"):
        OLoraSettings(lambda1=())


class Reference:
    """The base model with hooks that add own adapters; own penalties, own AdamW; nothing of peft's or the project's."""

    def __init__(self, model: nn.Module, ends: tuple[str, ...], scale: float) -> None:
        self.model, self.scale = model, scale
        self.layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.endswith(ends)]
        self.a: dict[str, list[Tensor]] = {n: [] for n in self.layers}
        self.b: dict[str, list[Tensor]] = {n: [] for n in self.layers}
        for name in self.layers:
            model.get_submodule(name).register_forward_hook(self._adding(name))
        self.head = [p for n, p in model.named_parameters() if "classifier" in n]

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            for a, b in zip(self.a[name], self.b[name], strict=True):
                output = output + self.scale * inputs[0] @ (b @ a).T
            return output

        return add

    def train(self, start: dict[str, Tensor], batches: list[GlobalBatch], lr: float, l1: float, l2: float) -> None:
        for name in self.layers:
            self.a[name].append(start[name].clone().requires_grad_())
            self.b[name].append(
                torch.zeros(self.model.get_submodule(name).out_features, len(start[name]), requires_grad=True)
            )
        new = [p for n in self.layers for p in (self.a[n][-1], self.b[n][-1])]
        adam = Adam([*new, *self.head], lr)
        for batch in batches:
            loss = mean_loss(self.model, batch)
            for name in self.layers:
                for old in self.a[name][:-1]:
                    for row in self.a[name][-1]:
                        for other in old.detach():
                            loss = loss + l1 * torch.dot(row, other).abs()
                for p in (self.a[name][-1], self.b[name][-1]):
                    if p.detach().abs().max() > 0:  # the norm has no slope at zero
                        loss = loss + l2 * (p**2).sum().sqrt()
            gradients = torch.autograd.grad(loss, [*new, *self.head])
            adam.step(gradients, decayed=len(new))


ENDS = {"tiny-t5": (".q", ".v"), "tiny-bert": (".query", ".value"), "tiny-llama": (".q_proj", ".v_proj")}


@pytest.mark.parametrize("model", FAMILIES)
def test_three_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    """The third adapter is held off both others, not off the last one alone."""
    olora = {"name": "olora", "r": 2, "alpha": 6.0, "dropout": 0.0, "lambda1": 0.3, "lambda2": [0.05, 0.1, 0.02]}
    learner = learner_of(
        model=model, methods=[{"tuning": olora}], stream={"max_train": 24}, training={"micro_batch": 2}
    )
    module = learner.family.module.double()
    reference = Reference(copy.deepcopy(module).train(), ENDS[model], scale=3.0)
    for parameter in reference.head:
        parameter.requires_grad_()
    torch.set_default_dtype(torch.float64)
    try:
        for task, l1, l2 in ((0, 0.0, 0.05), (1, 0.3, 0.1), (2, 0.3, 0.02)):
            learner.stack.grow(module, task + 1)
            start = {n: module.get_submodule(n).lora_A[str(task)].weight.detach() for n in reference.layers}
            reference.train(start, batches_of(learner, task), 1e-3, l1, l2)
            train_task(learner, task, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, p in zip(["weight", "bias"], reference.head, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, f"classifier.{name}")
    assert len(adapters(module)) == 6 * len(reference.layers)
    for name in reference.layers:
        for task in range(3):
            layer = module.get_submodule(name)
            assert_near(layer.lora_A[str(task)].weight, reference.a[name][task], f"{name}.A.{task}")
            assert_near(layer.lora_B[str(task)].weight, reference.b[name][task], f"{name}.B.{task}")


def test_without_penalties_it_is_inclora_bit_for_bit(sequence_of: Callable[..., SequencePlan]) -> None:
    zero = {"name": "olora", "lambda1": 0.0, "lambda2": 0.0}
    specs = {
        "zero": {"tuning": zero},
        "plain": {"tuning": {"name": "inclora", "dropout": 0.1}},
        "strong": {"tuning": {"name": "olora"}},
    }
    runs = {name: sequence_of(name, methods=[spec]) for name, spec in specs.items()}
    for run in runs.values():
        run_sequence(run, evaluate=False)
    states = {name: Store(Path(run.out)).load(run.keys[3]).weights for name, run in runs.items()}
    assert states["zero"].keys() == states["plain"].keys()
    assert all(torch.equal(w, states["plain"][n]) for n, w in states["zero"].items())
    assert not all(torch.equal(w, states["plain"][n]) for n, w in states["strong"].items())


def test_trials_share_the_task_that_the_penalty_does_not_touch(sequence_of: Callable[..., SequencePlan]) -> None:
    keys = [sequence_of(methods=[{"tuning": {"name": "olora", "lambda1": x}}]).keys for x in (0.1, 5.0)]
    assert keys[0][:2] == keys[1][:2]
    assert set(keys[0][2:]).isdisjoint(keys[1][2:])
