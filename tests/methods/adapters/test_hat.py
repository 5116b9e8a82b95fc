"""HAT: its formulas by hand, three tasks of it against a second implementation, and that nothing taken ever moves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import method_spec, trainable
from methods.adapters.hat import Attention, Hat, HatLayer, HatSettings, compensation, slope, taken_share
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.adapters.never_forgotten import assert_never_forgotten
from tests.methods.reference import Adam, GlobalBatch, assert_near, batches_of, mean_loss
from tests.steps import losses_of


def test_the_slope_rises_in_equal_steps() -> None:
    assert [slope(step, 3, 4.0) for step in (1, 2, 3)] == [0.25, 2.125, 4.0]
    assert slope(1, 1, 4.0) == 0.25


def test_the_compensation_by_hand() -> None:
    e = torch.tensor([0.0, 0.5, -0.5, 6.0], dtype=torch.float64)
    smaller = 5 * (math.cosh(1.0) + 1) / (math.cosh(0.5) + 1)
    expected = [5.0, smaller, smaller, 5 * (math.cosh(12) + 1) / (math.cosh(6) + 1)]
    torch.testing.assert_close(compensation(e, 2.0, 10.0).tolist(), expected)
    steep = compensation(torch.tensor([6.0]), 400.0, 400.0)
    torch.testing.assert_close(steep.item(), (math.cosh(50) + 1) / (math.cosh(6) + 1), rtol=1e-5, atol=0)


def test_compensated_gradients_are_those_of_a_flat_mask() -> None:
    """s_max times the derivative of sigmoid(e), whatever the slope of the mask through which they came."""
    for s in (0.1, 1.0, 7.0):
        e = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
        torch.sigmoid(s * e).sum().backward()
        assert e.grad is not None
        flat = torch.sigmoid(e.detach())
        torch.testing.assert_close(e.grad * compensation(e.detach(), s, 10.0), 10 * flat * (1 - flat))


def test_the_taken_share_by_hand() -> None:
    masks = [torch.tensor([1.0, 0.5]), torch.tensor([0.25])]
    # (1 · 0.2 + 0.5 · 1 + 0.25 · 0.4) / (0.2 + 1 + 0.4)
    share = taken_share(masks, [torch.tensor([0.8, 0.0]), torch.tensor([0.6])])
    torch.testing.assert_close(share, torch.tensor(0.5))
    assert taken_share(masks, [torch.ones(2), torch.ones(1)]) == 0.0, "where nothing is free"


def small_layer() -> tuple[HatLayer, Attention]:
    """Two inputs, two hidden units, two outputs, two tasks."""
    attention = Attention(s_max=100.0)
    layer = HatLayer(nn.Linear(2, 2, bias=False), HatSettings(r=2, alpha=4.0, dropout=0.0), attention)
    layer.set_tasks(2, "layer", 0)
    with torch.no_grad():
        layer.base_layer.weight.copy_(torch.eye(2))
        layer.lora_A["0"].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        layer.lora_B["0"].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        layer.hidden_embeddings["0"].copy_(torch.tensor([5.0, -5.0]))
        layer.output_embeddings["0"].copy_(torch.tensor([5.0, 0.0]))
        layer.hidden_embeddings["1"].copy_(torch.tensor([math.log(3.0), 0.0]))
        layer.output_embeddings["1"].copy_(torch.tensor([0.0, -5.0]))
    return layer, attention


def test_the_layer_by_hand() -> None:
    layer, attention = small_layer()
    x = torch.tensor([1.0, 2.0])
    # A x = (1, 3); task 0 keeps the first hidden unit, so B h = (1, 3), and the outputs are kept by 1 and 1/2
    layer.eval()
    assert layer(x).tolist() == [1 + 2 * 1.0, 2 + 2 * 1.5]
    attention.task = 1
    attention.s = 1.0
    layer.train()
    # h = (3/4, 1/2) of (1, 3); B h = (3.75, 0.75); o = (1/2, sigmoid(-5))
    expected = torch.tensor([1 + 2 * 3.75 / 2, 2 + 2 * 0.75 / (1 + math.exp(5))])
    torch.testing.assert_close(layer(x), expected)
    layer.eval()
    # at s_max, whatever training's slope is: h = (1, 1/2), so that B h = (4, 1.5), and o = (1/2, 0)
    torch.testing.assert_close(layer(x), torch.tensor([1 + 2 * 4 / 2, 2.0]))


def test_tasks_come_and_go_and_a_draw_depends_on_its_number() -> None:
    layer, _ = small_layer()
    layer.set_tasks(0, "layer", 0)
    assert [n for n, _ in layer.named_parameters()] == ["base_layer.weight"]
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(layer(x), layer.base_layer(x))
    layer.set_tasks(1, "layer", 0)
    layer.set_tasks(3, "layer", 0)
    again = HatLayer(nn.Linear(2, 2), HatSettings(r=2), Attention(400.0))
    again.set_tasks(3, "layer", 0)
    for kind in ("hidden_embeddings", "output_embeddings"):
        one, other = getattr(layer, kind), getattr(again, kind)
        assert list(one) == ["0", "1", "2"]
        assert all(torch.equal(one[t], other[t]) for t in one)
        assert len({e[0].item() for e in one.values()}) == 3
        assert [e.requires_grad for e in one.values()] == [False, False, True]


class Reference:
    """The base model with hooks that add masked adapters; own slope, masks, gradients and AdamW; nothing of the project's."""

    def __init__(self, model: nn.Module, ends: tuple[str, ...], scale: float, s_max: float, sparsity: float) -> None:
        self.model, self.scale, self.s_max, self.sparsity = model, scale, s_max, sparsity
        self.layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.endswith(ends)]
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        # of each layer the embeddings (hidden, output) of each task
        self.e: dict[str, list[tuple[Tensor, Tensor]]] = {n: [] for n in self.layers}
        self.s = 0.0
        for name in self.layers:
            model.get_submodule(name).register_forward_hook(self._adding(name))
        self.head = [p for n, p in model.named_parameters() if "classifier" in n]

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            h, o = (1 / (1 + torch.exp(-self.s * e)) for e in self.e[name][-1])
            return output + self.scale * torch.einsum("o,or,r,ri,...i->...o", o, self.b[name], h, self.a[name], *inputs)

        return add

    def earlier(self, name: str, kind: int) -> Tensor:
        """The largest mask of each unit in any earlier task."""
        masks = [1 / (1 + torch.exp(-self.s_max * e[kind])) for e in self.e[name][:-1]]
        return torch.stack([torch.zeros_like(self.e[name][-1][kind]), *masks]).max(0).values

    def loss(self, batch: GlobalBatch) -> Tensor:
        above, below = torch.zeros(()), torch.zeros(())
        for name in self.layers:
            for kind in (0, 1):
                free = 1 - self.earlier(name, kind)
                above = above + (free / (1 + torch.exp(-self.s * self.e[name][-1][kind]))).sum()
                below = below + free.sum()
        return mean_loss(self.model, batch) + self.sparsity * above / below

    def train(self, batches: list[GlobalBatch], lr: float) -> None:
        matrices = [m for n in self.layers for m in (self.a[n], self.b[n])]
        embeddings = [e for n in self.layers for e in self.e[n][-1]]
        shares = []
        for name in self.layers:
            hidden, output = self.earlier(name, 0), self.earlier(name, 1)
            shares += [1 - hidden[:, None].expand_as(self.a[name])]
            shares += [
                1 - torch.stack([output[:, None].expand_as(self.b[name]), hidden.expand_as(self.b[name])]).amin(0)
            ]
        adam = Adam([*matrices, *embeddings, *self.head], lr)
        for step, batch in enumerate(batches):
            self.s = 1 / self.s_max + (self.s_max - 1 / self.s_max) * step / (len(batches) - 1)
            gradients = list(torch.autograd.grad(self.loss(batch), [*matrices, *embeddings, *self.head]))
            for i, share in enumerate(shares):
                gradients[i] = gradients[i] * share
            for i, e in enumerate(embeddings, start=len(matrices)):
                e = e.detach()
                flat = (torch.cosh((self.s * e).clamp(-50, 50)) + 1) / (torch.cosh(e) + 1)
                gradients[i] = gradients[i] * self.s_max / self.s * flat
            before = [m.detach().clone() for m in matrices]
            adam.step(gradients, decayed=len(matrices))
            with torch.no_grad():
                for m, old, share in zip(matrices, before, shares, strict=True):
                    m.copy_(old + share * (m - old))
                for e in embeddings:
                    e.clamp_(-1.5, 1.5)


ENDS = {"tiny-t5": (".q", ".v"), "tiny-bert": (".query", ".value"), "tiny-llama": (".q_proj", ".v_proj")}


@pytest.mark.parametrize("model", FAMILIES)
def test_three_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    """With a slope so small that many masks lie between 0 and 1, and embeddings that reach their bound."""
    hat = {"name": "hat", "r": 4, "alpha": 8.0, "dropout": 0.0, "s_max": 5.0, "sparsity": 2.0, "max_embedding": 1.5}
    learner = learner_of(
        model=model, methods=[{"tuning": hat}], stream={"max_train": 24}, training={"micro_batch": 2, "lr": 1e-2}
    )
    module = learner.family.module.double()
    plain = copy.deepcopy(module).train()
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, HatLayer):
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, layer.base_layer)
    reference = Reference(plain, ENDS[model], scale=2.0, s_max=5.0, sparsity=2.0)
    tuning = learner.stack.tuning
    assert isinstance(tuning, Hat)
    assert list(tuning.layers) == reference.layers
    torch.set_default_dtype(torch.float64)
    try:
        for task in range(3):
            learner.stack.grow(module, task + 1)
            for name, layer in tuning.layers.items():
                if not task:
                    reference.a[name] = layer.lora_A["0"].weight.detach().clone().requires_grad_()
                    reference.b[name] = layer.lora_B["0"].weight.detach().clone().requires_grad_()
                kinds = (layer.hidden_embeddings, layer.output_embeddings)
                hidden, output = (kind[str(task)].detach().clone().requires_grad_() for kind in kinds)
                reference.e[name].append((hidden, output))
            reference.train(batches_of(learner, task), 1e-2)
            train_task(learner, task, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, layer in tuning.layers.items():
        assert_near(layer.lora_A["0"].weight, reference.a[name], f"{name}.A")
        assert_near(layer.lora_B["0"].weight, reference.b[name], f"{name}.B")
        for task, (hidden, output) in enumerate(reference.e[name]):
            assert_near(layer.hidden_embeddings[str(task)], hidden, f"{name}.hidden.{task}")
            assert_near(layer.output_embeddings[str(task)], output, f"{name}.output.{task}")
            assert 1.4 < output.abs().max() <= 1.5, "else the bound would not be seen"
    for name, p in zip(["weight", "bias"], reference.head, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)


def test_old_tasks_are_never_forgotten(learner_of: Callable[..., Learner]) -> None:
    """With masks that are 0 or 1, not a bit of an earlier task's logits changes, whatever decays or pushes the weights."""
    method = {"tuning": {"name": "hat", "r": 8, "s_max": 1e6}, "plugins": ["replay"]}
    learner = learner_of(methods=[method], stream={"max_train": 16}, training={"lr": 0.05, "weight_decay": 0.5})
    assert_never_forgotten(learner)


def test_a_task_is_answered_with_its_own_masks_and_a_later_one_with_the_newest(
    learner_of: Callable[..., Learner],
) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "hat", "r": 2}}])
    tuning = learner.stack.tuning
    assert isinstance(tuning, Hat)
    learner.stack.grow(learner.family.module, 3)
    for task, expected in ((0, 0), (2, 2), (4, 2)):
        learner.stack.before_scoring(learner.family.module, task)
        assert tuning.attention.task == expected
    learner.stack.before_scoring(learner.family.module, 0)
    learner.stack.after_scoring(learner.family.module)
    assert tuning.attention.task == 2, "the task that is trained"


def test_the_newest_embeddings_and_the_adapter_train(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-bert", methods=[{"tuning": {"name": "hat", "r": 2}}])
    for task in range(2):
        train_task(learner, task, lambda event: None)
        parts = {".".join(n.split(".")[-3:]) for n in trainable(learner.family.module) if "classifier" not in n}
        assert {p.removeprefix("query.").removeprefix("value.") for p in parts} == {
            "lora_A.0.weight", "lora_B.0.weight", f"hidden_embeddings.{task}", f"output_embeddings.{task}",
        }  # fmt: skip
    assert any(n.endswith("hidden_embeddings.0") for n in learner.weights()), "a checkpoint holds the earlier ones too"


def test_the_share_of_taken_units_is_told(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "hat", "r": 2, "s_max": 1e6}}], stream={"max_train": 8})
    tuning = learner.stack.tuning
    assert isinstance(tuning, Hat)
    for task in range(2):
        history = train_task(learner, task, lambda event: None).history
        signs = []
        for layer in tuning.layers.values():
            for kind in (layer.hidden_embeddings, layer.output_embeddings):
                signs.append(torch.stack([e > 0 for e in kind.values()]).any(0))
        expected = torch.cat(signs).double().mean().item()
        assert history["diagnostics"]["hat/taken_share"] == pytest.approx(expected, abs=1e-4)
        assert 0.4 < expected < 0.9


def test_its_strengths_count_from_the_first_task_on(sequence_of: Callable[..., SequencePlan]) -> None:
    """Without sparsity no term is added; a run is made of its settings, whose keys differ."""
    runs = {
        str(c): sequence_of(str(c), methods=[{"tuning": {"name": "hat", "sparsity": c}}], stream={"first": 1})
        for c in (0.0, 3.0)
    }
    assert set(runs["0.0"].keys).isdisjoint(runs["3.0"].keys[1:])
    losses = []
    for run in runs.values():
        run_sequence(run, evaluate=False)
        losses.append(losses_of(run.out, run.id)[0])
    # at the first slope, 1 / 400, every mask is about 1/2, and so is the share
    assert losses[1] - losses[0] == pytest.approx(1.5, abs=1e-2)


def test_what_holds_old_weights_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'ewc' cannot be combined with 'hat': each task trains the weights"):
        method_spec({"tuning": "hat", "plugins": ["ewc"]})
