"""MIGU against a second implementation written from the paper, on real architectures."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods import Context
from methods.masking.migu import Migu
from methods.masking.migu_settings import MiguSettings
from methods.masking.output_units import maskable_weights
from methods.masking.selection import units_below_quantile
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.masking.masked import masked_learner
from tests.methods.reference import Adam, GlobalBatch, batches_of, mean_loss
from tests.methods.toy import batch_with_mask

# What the paper masks, spelt out for each architecture: query, key, value, output, feed-forward
MASKED = {
    "tiny-t5": ("SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o EncDecAttention.q EncDecAttention.k "
                "EncDecAttention.v EncDecAttention.o DenseReluDense.wi DenseReluDense.wo"),
    "tiny-bert": ("attention.self.query attention.self.key attention.self.value attention.output.dense "
                  "intermediate.dense .output.dense"),
    "tiny-llama": ("self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj "
                   "mlp.down_proj"),
}  # fmt: skip


COUNT = {"tiny-t5": 2 * 6 + 2 * 10, "tiny-bert": 2 * 6, "tiny-llama": 2 * 7}


class Reference:
    """Fine-tuning with MIGU, written anew: own hooks, own masks, own AdamW, own clipping; nothing of the project's."""

    def __init__(self, model: nn.Module, kind: str, lora: bool, keep: float, lr: float) -> None:
        self.model, self.keep = model, keep
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # a new head does not decay
        head = [p for n, p in self.parameters.items() if "classifier" in n]
        self.trained = [p for n, p in self.parameters.items() if "classifier" not in n] + head
        self.num_decayed = len(self.trained) - len(head)
        self.adam = Adam(self.trained, lr)
        self.sizes: dict[str, list[Tensor]] = {}
        for name, module in model.named_modules():
            ends = MASKED[kind].split()
            if any(name.endswith(end) for end in ends) and "pooler" not in name and not lora:
                self._listen(module, name + ".weight")
            if lora and name.endswith("lora_A.default"):
                layer = model.get_submodule(name.removesuffix(".lora_A.default"))
                self._listen(module, name + ".weight")
                self._listen(layer, name.replace("lora_A", "lora_B") + ".weight")

    def _listen(self, module: nn.Module, weight: str) -> None:
        self.sizes[weight] = []
        module.register_forward_hook(lambda m, i, o: self.sizes[weight].append(o.detach().clone()))

    def step(self, step: GlobalBatch, mask_units: bool, loss_of: Callable[..., Tensor] = mean_loss) -> None:
        for sizes in self.sizes.values():
            sizes.clear()
        self.model.zero_grad()
        loss_of(self.model, step).backward()
        if mask_units:
            for weight, outputs in self.sizes.items():
                (output,) = outputs
                reads_answer = weight.startswith("decoder") and not re.search(r"EncDecAttention\.[kv]\.", weight)
                real = (step.batch.labels != -100).long() if reads_answer else step.batch.source.mask
                tokens = torch.stack(
                    [output[b, s] for b in range(len(real)) for s in range(real.shape[1]) if real[b, s]]
                )
                mean = tokens.double().abs().mean(0).tolist()
                ranked = sorted(range(len(mean)), key=lambda k: mean[k])
                for unit in ranked[: math.floor(round((1 - self.keep) * len(mean), 9))]:
                    self.parameters[weight].grad[unit] = 0.0
        self.adam.step([p.grad for p in self.trained], decayed=self.num_decayed)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", FAMILIES)
def test_five_steps_equal_a_second_implementation(model: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    part = {"name": "lora", "dropout": 0.0} if tuning == "lora" else "full"
    migu = {"name": "migu", "ratio": 0.3, "mask_first_task": True}
    learner = learner_of(
        model=model,
        methods=[{"tuning": part, "plugins": [migu]}],
        stream={"max_train": 40},
        training={"lr": 1e-3, "global_batch": 8},
    )
    # In float64 a difference means another formula; in float32 Adam turns rounding in tiny gradients into whole steps.
    learner.family.module.double()
    before = {n: p.detach().clone() for n, p in learner.family.module.named_parameters()}
    reference = Reference(copy.deepcopy(learner.family.module).train(), model, tuning == "lora", keep=0.3, lr=1e-3)
    assert len(reference.sizes) == len(maskable_weights(learner.family.module))
    assert tuning == "lora" or len(reference.sizes) == COUNT[model]
    batches = batches_of(learner, 0)
    assert len(batches) == 5
    for batch in batches:
        reference.step(batch, mask_units=True)
    train_task(learner, 0, lambda event: None)
    moved = 0
    for name, p in learner.family.module.named_parameters():
        if p.requires_grad:
            expected = reference.parameters[name]
            # a key's bias has no gradient in exact arithmetic (softmax cancels it): it stays at rounding, 1e-16
            difference = (p - expected).norm() / expected.norm().clamp(min=1e-6)
            assert difference < 1e-6, f"{name}: {difference:.2e}"
            moved += int((p != before[name]).any())
    assert moved > 0
    plain = Reference(copy.deepcopy(learner.family.module), model, tuning == "lora", keep=1.0, lr=1e-3)
    with torch.no_grad():
        for name, p in plain.parameters.items():
            p.copy_(before[name])
    for batch in batches:
        plain.step(batch, mask_units=False)
    weight = next(iter(plain.sizes))
    unmasked = (plain.parameters[weight] - reference.parameters[weight]).norm() / reference.parameters[weight].norm()
    assert unmasked > 1e-4, "the mask changed nothing, so the comparison proves nothing"


def loss_under_autocast(model: nn.Module, step: GlobalBatch) -> Tensor:
    """The mean loss of a forward pass in bfloat16; cross-entropy itself in float32."""
    source, labels = step.batch.source, step.batch.labels
    inputs = {"input_ids": source.ids, "attention_mask": source.mask}
    if step.batch.target is not None:
        inputs["labels"] = labels
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs).logits
    if labels.ndim == 1:
        logits = logits[:, : step.num_labels]
    elif step.batch.target is None:
        logits, labels = logits[:, :-1], labels[:, 1:]
    kept = labels != -100
    return nn.functional.cross_entropy(logits[kept].float(), labels[kept])


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", FAMILIES)
def test_in_bfloat16_the_masks_are_the_second_implementations_too(
    model: str, tuning: str, learner_of: Callable[..., Learner]
) -> None:
    """Layer outputs have three digits there, but their sums all of theirs: one unit swapped would show."""
    part = {"name": "lora", "dropout": 0.0} if tuning == "lora" else "full"
    learner = learner_of(
        model=model,
        precision="bf16",
        methods=[{"tuning": part, "plugins": [{"name": "migu", "ratio": 0.3, "mask_first_task": True}]}],
        stream={"max_train": 40},
        training={"lr": 1e-3, "global_batch": 8},
    )
    module = learner.family.module
    reference = Reference(copy.deepcopy(module).train(), model, tuning == "lora", keep=0.3, lr=1e-3)
    for batch in batches_of(learner, 0):
        reference.step(batch, mask_units=True, loss_of=loss_under_autocast)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    train_task(learner, 0, lambda event: None)
    for name, p in module.named_parameters():
        if p.requires_grad:
            # as a share of the update: beside the weight a swapped unit would be small
            update = (reference.parameters[name] - before[name]).detach()
            difference = (p - reference.parameters[name]).detach().norm() / update.norm().clamp(min=1e-6)
            assert difference < 1e-3, f"{name}: {difference:.2e}"


def test_the_first_task_is_not_masked_by_default() -> None:
    assert Migu(MiguSettings(ratio=0.3), Context(0)).cache_fields(0) is None
    assert Migu(MiguSettings(ratio=0.3, mask_first_task=True), Context(0)).cache_fields(0) is not None
    fields = Migu(MiguSettings(ratio=0.3), Context(0)).cache_fields(1)
    assert fields is not None
    assert "masks" not in fields, "as in the keys of checkpoints from before the setting"


@pytest.mark.parametrize(("importance", "kept"), [("weight", [1, 2]), ("gradient", [0, 2])])
def test_weight_and_gradient_importance_by_hand(importance: str, kept: list[int]) -> None:
    layer = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [4.0, 0.0], [-2.0, 3.0], [0.5, 0.5]]))
    gradient = torch.tensor([[5.0, -4.0], [1.0, 1.0], [0.0, 9.0], [-1.0, 2.0]])
    layer.weight.grad = gradient.clone()
    method = Migu(MiguSettings(ratio=0.5, importance=importance, diagnostics=False), Context(0))  # type: ignore[arg-type]
    model = nn.ModuleDict({"0": layer})
    method.before_task(model, 1, [])
    method.before_optimizer_step(model)
    expected = torch.zeros(4, 2)
    expected[kept] = gradient[kept]
    assert torch.equal(layer.weight.grad, expected)
    method.measure(model, 1, [])
    assert method.diagnostics() == {"kept_share": [0.5]}


@pytest.mark.parametrize(
    ("settings", "padding", "masked"),
    [({}, 0, 1), ({"per_token_norm": True}, 0, 0), ({}, 1, 1), ({"count_padding": True}, 1, 0)],
)
def test_which_tokens_count_and_how_by_hand(settings: dict[str, bool], padding: int, masked: int) -> None:
    """|y| of one large token and three small ones, or of a padding token beside a real one. Another method's pass: not."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    # sums 100.3 and 93; of shares 0.53 + 3 / 11 and 0.47 + 30 / 11
    x = torch.tensor([[[100.0, 90.0], [0.1, 1.0], [0.1, -1.0], [0.1, 1.0]]])
    mask = torch.ones(1, 4)
    if padding:
        x = torch.tensor([[[2.0, 1.0], [0.0, 10.0]]])
        mask = torch.tensor([[1, 0]])
    method = Migu(MiguSettings(ratio=0.5, diagnostics=False, **settings), Context(0))  # type: ignore[arg-type]
    model = nn.ModuleDict({"0": layer})
    method.before_task(model, 1, [])
    batch = method.on_batch(batch_with_mask(mask))
    method.after_forward(model, batch, torch.zeros(1), layer(x).sum())
    # which would turn the order round
    layer(1e4 * torch.eye(2)[masked].expand_as(x))
    layer.weight.grad = torch.ones(2, 2)
    method.before_optimizer_step(model)
    assert layer.weight.grad.any(1).tolist() == [masked == 1, masked == 0]


def test_masked_units_are_put_back_in_their_own_step_alone() -> None:
    layer = nn.Linear(1, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    settings = MiguSettings(ratio=0.5, importance="weight", freeze_masked=True, diagnostics=False)
    method = Migu(settings, Context(0))
    model = nn.ModuleDict({"0": layer})
    method.before_task(model, 1, [])
    # an optimizer that moves all units, as AdamW does; it leaves those first that the next step masks
    for moved, expected in (([9.0, 9.0, 0.1, 0.2], [1.0, 2.0, 0.1, 0.2]), ([5.0, 6.0, 7.0, 8.0], [5.0, 6.0, 0.1, 0.2])):
        layer.weight.grad = torch.ones(4, 1)
        method.before_optimizer_step(model)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(moved)[:, None])
        method.after_optimizer_step(model)
        assert layer.weight.flatten().tolist() == torch.tensor(expected).tolist()


def test_random_importance_is_the_random_control(sequence_of: Callable[..., SequencePlan]) -> None:
    runs = []
    for name, settings in (("random_mask", {}), ("migu", {"importance": "random"})):
        sequence = sequence_of(name, methods=[{"tuning": "full", "plugins": [{"name": name, **settings}]}])
        run_sequence(sequence, evaluate=False)
        runs.append(Store(Path(sequence.out)).load(sequence.keys[3]).weights)
    assert all(torch.equal(w, runs[1][n]) for n, w in runs[0].items())


def test_frozen_units_stand_still_and_others_do_not(learner_of: Callable[..., Learner]) -> None:
    numbers = {}
    for freeze in (False, True):
        settings = {"freeze_masked": freeze, "diagnostics": True, "ratio": 0.2}
        learner = masked_learner(
            learner_of, settings=settings, stream={"max_train": 24}, training={"weight_decay": 0.1, "lr": 1e-2}
        )
        train_task(learner, 0, lambda event: None)
        numbers[freeze] = learner.stack.collect_diagnostics(0)
    assert numbers[False]["migu/moved_though_masked"] > 0
    assert numbers[True]["migu/moved_though_masked"] == 0
    assert numbers[True]["migu/update_norm"] > 0


def test_the_quantile_rule_by_hand() -> None:
    magnitude = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    # the 0.7 quantile of 1..5 is 1 + 0.7 * 4 = 3.8; the 0.5 quantile is 3, which stays
    assert sorted(units_below_quantile(magnitude, 0.3).tolist()) == [1, 3, 4]
    assert sorted(units_below_quantile(magnitude, 0.5).tolist()) == [1, 3]
    assert units_below_quantile(magnitude, 1.0).tolist() == []
