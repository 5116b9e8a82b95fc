"""ExSSNeT: masks and layer by hand, three tasks of it against a second implementation, and that no mask's weights ever move."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from methods import method_spec
from methods.adapters.exssnet import Exssnet, ExssnetSettings, SubnetLayer, TopShare
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.adapters.never_forgotten import assert_never_forgotten, logits_of
from tests.methods.reference import Adam, GlobalBatch, assert_near, batches_of, mean_loss


def test_the_largest_scores_make_the_mask_and_get_its_gradient() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.3], [0.2, 0.0, 0.05]], requires_grad=True)
    mask = TopShare.apply(scores, 0.5)
    assert mask.tolist() == [[0, 1, 1], [1, 0, 0]]
    (mask * torch.arange(6.0).view(2, 3)).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert TopShare.apply(scores, 1.0).all()
    assert TopShare.apply(scores, 0.01).tolist() == [[0, 1, 0], [0, 0, 0]], "one entry at least"


def small_layer() -> SubnetLayer:
    """Two inputs, two hidden units, one output."""
    layer = SubnetLayer(nn.Linear(2, 1, bias=False), ExssnetSettings(r=2, alpha=6.0, dropout=0.0, density=0.5))
    layer.set_experts(1, "layer", 0)
    with torch.no_grad():
        layer.base_layer.weight.fill_(1.0)
        layer.lora_A["0"].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.lora_B["0"].weight.copy_(torch.tensor([[5.0, 7.0]]))
    return layer


def test_the_layer_by_hand() -> None:
    layer = small_layer()
    x = torch.tensor([1.0, 10.0])
    assert layer(x).item() == 11.0, "without masks it is the base layer"
    layer.begin(torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.scores["A"].copy_(torch.tensor([[0.1, -0.4], [0.3, 0.2]]))
        layer.scores["B"].copy_(torch.tensor([[0.1, -0.2]]))
    # by the size of the scores A keeps its 2 and its 3, B its 7: 11 + 3 · 7 · 3
    assert layer(x).item() == 74.0
    layer(x).backward()
    # dy/dB = 3 h = 3 (20, 3), and dy/dA = 3 · 7 x in the second row, times the weight and the sign of the score
    assert layer.scores["B"].grad.tolist() == [[3 * 20 * 5, -3 * 3 * 7]]  # type: ignore[union-attr]
    assert layer.scores["A"].grad.tolist() == [[0, 0], [21 * 1 * 3, 21 * 10 * 4]]  # type: ignore[union-attr]
    layer.settle()
    with torch.no_grad():
        layer.scores["B"].copy_(torch.tensor([[0.3, -0.2]]))
    assert layer(x).item() == 74.0, "the search is over"
    layer.keep()
    assert not layer.scores
    masks = layer.masks_of(0)
    assert masks["A"].tolist() == [[False, True], [True, False]]
    assert masks["B"].tolist() == [[False, True]]


def test_a_pass_may_have_other_weights_in_place_of_its_own() -> None:
    """As a teacher's pass has, which is the model with its old weights."""
    layer = small_layer()
    layer.active = {"A": torch.ones(2, 2).bool(), "B": torch.ones(1, 2).bool()}
    x = torch.tensor([1.0, 10.0])
    old = {"lora_A.0.weight": torch.eye(2), "lora_B.0.weight": torch.tensor([[1.0, 2.0]])}
    assert functional_call(layer, old, (x,)).item() == 11 + 3 * (1 + 20)
    # with its own: 11 + 3 (5 · 21 + 7 · 43)
    assert layer(x).item() == 11 + 3 * (105 + 301)


def test_what_earlier_masks_have_is_of_all_of_them() -> None:
    layer = small_layer()
    for a in ([[1, 0], [0, 0]], [[0, 0], [1, 0]]):
        layer.active = {"A": torch.tensor(a).bool(), "B": torch.tensor([[0, 1]]).bool()}
        layer.keep()
    assert layer.earlier()["A"].tolist() == [[True, False], [True, False]]
    assert layer.earlier()["B"].tolist() == [[False, True]]


def test_the_adapter_is_drawn_with_random_signs_of_one_size() -> None:
    layer = SubnetLayer(nn.Linear(16, 9), ExssnetSettings(r=25))
    layer.set_experts(1, "layer", 0)
    for part, size in (("A", 1 / 4), ("B", 1 / 5)):
        weight = layer.parts[part]
        torch.testing.assert_close(weight.abs(), torch.full_like(weight, size))
        assert 0.35 < (weight > 0).float().mean() < 0.65
    layer.begin(torch.Generator().manual_seed(0))
    for part, bound in (("A", 1 / 4), ("B", 1 / 5)):
        assert 0.95 * bound < layer.scores[part].max() <= bound
        assert -bound <= layer.scores[part].min() < -0.95 * bound


class Reference:
    """The base model with hooks that add subnetworks; own masks by sorting, own gradients; nothing of the project's."""

    def __init__(self, model: nn.Module, names: list[str], scale: float, density: float) -> None:
        self.model, self.names, self.scale, self.density = model, names, scale, density
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        # of each task, of each layer
        self.masks: list[dict[str, tuple[Tensor, Tensor]]] = []
        self.subnets: dict[str, tuple[Tensor, Tensor]] = {}
        for name in names:
            model.get_submodule(name).register_forward_hook(self._adding(name))
        self.head = [p for n, p in model.named_parameters() if "classifier" in n]

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            a, b = self.subnets[name]
            return output + self.scale * inputs[0] @ (b @ a).T

        return add

    def largest(self, scores: Tensor) -> Tensor:
        """1 where fewer than the kept number of scores are larger in size."""
        size = scores.abs()
        kept = size.numel() - math.floor((1 - self.density) * size.numel())
        rank = (size.flatten()[None, :] > size.flatten()[:, None]).sum(1)
        return (rank < kept).double().view_as(size)

    def train(self, batches: list[GlobalBatch], scores: dict[str, list[Tensor]], mask_steps: int, lr: float) -> None:
        weights = {n: [self.a[n], self.b[n]] for n in self.names}
        flat_scores = [s for n in self.names for s in scores[n]]
        flat_weights = [w for n in self.names for w in weights[n]]
        adam = Adam([*flat_scores, *flat_weights, *self.head], lr)
        masks: dict[str, tuple[Tensor, Tensor]] = {}
        for step, batch in enumerate(batches):
            if step <= mask_steps:
                masks = {n: (self.largest(scores[n][0]), self.largest(scores[n][1])) for n in self.names}
            self.subnets = {
                n: tuple((w * m).requires_grad_() for w, m in zip(weights[n], masks[n], strict=True))  # type: ignore[misc]
                for n in self.names
            }
            leaves = [w for n in self.names for w in self.subnets[n]]
            found = torch.autograd.grad(mean_loss(self.model, batch), [*leaves, *self.head])
            of_scores, of_weights = [], []
            flat_masks = [m for n in self.names for m in masks[n]]
            for i, (gradient, score, weight) in enumerate(zip(found, flat_scores, flat_weights, strict=False)):
                searching = step < mask_steps
                of_scores.append(gradient * weight * score.sign() * searching)
                free = flat_masks[i].clone()
                for old in self.masks:
                    free *= 1 - [m for n in self.names for m in old[n]][i]
                of_weights.append(gradient * free * (not searching))
            adam.step([*of_scores, *of_weights, *found[len(leaves) :]], decayed=0)
        self.masks.append(masks)


@pytest.mark.parametrize("model", FAMILIES)
def test_three_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    exssnet = {"name": "exssnet", "r": 6, "alpha": 12.0, "dropout": 0.0, "density": 0.4, "mask_share": 0.4}
    learner = learner_of(
        model=model, methods=[{"tuning": exssnet}], stream={"max_train": 40}, training={"micro_batch": 2, "lr": 1e-2}
    )
    module = learner.family.module.double()
    plain = copy.deepcopy(module).train()
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, SubnetLayer):
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, layer.base_layer)
    tuning = learner.stack.tuning
    assert isinstance(tuning, Exssnet)
    reference = Reference(plain, list(tuning.layers), scale=2.0, density=0.4)
    torch.set_default_dtype(torch.float64)
    try:
        for task in range(3):
            learner.stack.grow(module, task + 1)
            tuning.before_task(module, task, [])
            scores = {}
            for name, layer in tuning.layers.items():
                scores[name] = [layer.scores[part].detach().clone() for part in ("A", "B")]
                if not task:
                    reference.a[name] = layer.parts["A"].detach().clone()
                    reference.b[name] = layer.parts["B"].detach().clone()
            # two of five steps find the masks
            reference.train(batches_of(learner, task), scores, mask_steps=2, lr=1e-2)
            history = train_task(learner, task, lambda event: None).history
    finally:
        torch.set_default_dtype(torch.float32)
    for name, layer in tuning.layers.items():
        assert_near(layer.parts["A"], reference.a[name], f"{name}.A")
        assert_near(layer.parts["B"], reference.b[name], f"{name}.B")
        for task, masks in enumerate(reference.masks):
            for part, mask in zip("AB", masks[name], strict=True):
                assert torch.equal(layer.masks_of(task)[part], mask.bool()), f"{name}.{part}.{task}"
    for name, p in zip(["weight", "bias"], reference.head, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)
    earlier = [torch.maximum(a, b) for a, b in zip(*map(flat, reference.masks[:2]), strict=True)]
    last = flat(reference.masks[2])
    own = sum(float((m * (1 - e)).sum()) for m, e in zip(last, earlier, strict=True))
    taken = sum(float(torch.maximum(m, e).sum()) for m, e in zip(last, earlier, strict=True))
    numbers = history["diagnostics"]
    assert numbers["exssnet/own_share"] == pytest.approx(own / sum(float(m.sum()) for m in last))
    assert numbers["exssnet/taken_share"] == pytest.approx(taken / sum(m.numel() for m in last))


def flat(masks: dict[str, tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [m for pair in masks.values() for m in pair]


def test_old_tasks_are_never_forgotten(learner_of: Callable[..., Learner]) -> None:
    """Not a bit of an earlier task's logits changes, whatever decays the weights or changes their gradients."""
    method = {"tuning": {"name": "exssnet", "r": 8, "density": 0.3}}
    learner = learner_of(methods=[method], stream={"max_train": 32}, training={"lr": 0.02, "weight_decay": 0.5})
    answers = assert_never_forgotten(learner)
    assert torch.equal(logits_of(learner, 2, 7), answers[2]), "a later task is answered as the newest"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_steps_may_be_of_one_kind(share: float, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "exssnet", "r": 4, "mask_share": share}}])
    tuning, module = learner.stack.tuning, learner.family.module
    assert isinstance(tuning, Exssnet)
    learner.stack.grow(module, 1)
    tuning.before_task(module, 0, [])
    before = {n: {p: w.detach().clone() for p, w in layer.parts.items()} for n, layer in tuning.layers.items()}
    first = {
        n: {p: TopShare.apply(s.detach().abs(), 0.1) for p, s in m.scores.items()} for n, m in tuning.layers.items()
    }
    train_task(learner, 0, lambda event: None)
    moved = found_elsewhere = False
    for name, layer in tuning.layers.items():
        for part, weight in layer.parts.items():
            moved |= not torch.equal(weight, before[name][part])
            found_elsewhere |= not torch.equal(layer.masks_of(0)[part], first[name][part].bool())
    assert moved == (share == 0.0), "without a search the weights train, and without training they stay"
    assert found_elsewhere == (share == 1.0)


def test_a_checkpoint_holds_one_adapter_and_a_bit_for_each_weight_and_task(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "exssnet", "r": 5}}], stream={"max_train": 16})
    for task in range(2):
        state = train_task(learner, task, lambda event: None)
    assert all(name.split(".")[-3] in ("lora_A", "lora_B") for name in state.weights)
    masks = state.method["0:exssnet"]
    assert list(masks) == ["0", "1"]
    tuning = learner.stack.tuning
    assert isinstance(tuning, Exssnet)
    for name, layer in tuning.layers.items():
        for part, weight in layer.parts.items():
            assert masks["1"][name][part].dtype == torch.uint8
            assert masks["1"][name][part].numel() == math.ceil(weight.numel() / 8)


def test_migu_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'migu' cannot be combined with 'exssnet': it trains single weights"):
        method_spec({"tuning": "exssnet", "plugins": ["migu"]})
