"""What a method holds amid a task comes back in another process's method, in place where a hook may refer to it."""

from __future__ import annotations

import json
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods import Batch, Context, Method, Settings
from methods.seam.amid_task import AmidTask


@dataclass(frozen=True)
class Fixed:
    count: int
    sums: Tensor


class Pair(NamedTuple):
    low: float
    high: Tensor


class Own:
    """An object of the method's own, which refers back to it."""

    of_a_step = ("mask",)

    def __init__(self, method: Method) -> None:
        self.method = method
        self.seen = 0
        self.mask = torch.zeros(1)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(2))
        self.temperature = 1.0


class Everything(Method):
    """Holds one of each kind of thing."""

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layer = model.get_submodule("0")
        self.steps = 0
        self.name = "none"
        self.fisher = torch.ones(3)
        self.sums = torch.zeros(2)
        self.scalar = torch.zeros(())
        self.by_module: dict[Any, Tensor] = {layer: torch.zeros(1)}
        self.by_weight: dict[Any, float] = {}
        self.by_place: dict[Any, list[float]] = {(0, "a"): []}
        self.list = [torch.zeros(1)]
        self.queue: deque[int] = deque(maxlen=2)
        self.labels: set[str] = set()
        self.pair = Pair(0.0, torch.zeros(1))
        self.fixed = Fixed(0, torch.zeros(1))
        self.own = Own(self)
        self.rng = torch.Generator().manual_seed(3)
        self.late: Tensor | None = None
        self.late_rng: torch.Generator | None = None
        self.gate = Gate()
        self.batch: Any = None
        self.view = next(layer.parameters()).detach()[0]
        # as a hook does
        self.read = lambda: (self.sums, self.list, self.own)

    def step(self, model: nn.Module, number: int) -> None:
        layer = model.get_submodule("0")
        self.steps += 1
        self.name = f"step {number}"
        self.sums += number
        self.scalar.fill_(number)
        self.by_module[layer] = torch.tensor([number / 2])
        self.by_weight[next(layer.parameters())] = number * 3
        self.by_place[number, "b"] = [number, float("inf")]
        self.list.append(torch.tensor([number]))
        self.queue.append(number)
        self.labels.add(f"label {number}")
        self.pair = Pair(number, self.pair.high + number)
        object.__setattr__(self.fixed, "count", self.fixed.count + 1)
        self.fixed.sums.add_(2.0)
        self.own.seen += 10
        self.own.mask = torch.full((1,), float(number))
        torch.randn(5, generator=self.rng)
        self.late = torch.full((2,), float(number), dtype=torch.bfloat16)
        self.late_rng = torch.Generator().manual_seed(number)
        with torch.no_grad():
            self.gate.weight.add_(number)
            self.gate.mean.add_(1.0)  # type: ignore[operator]
        self.gate.temperature /= 2
        self.batch = Own(self)


def begun() -> tuple[Everything, nn.Module]:
    part = Everything(Settings(), Context(seed=0))
    model = nn.Sequential(nn.Linear(2, 2))
    part.before_task(model, 0, ())
    return part, model


def plain(value: Any) -> Any:
    """Nested values, as JSON and back where a checkpoint keeps them so."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.clone() if isinstance(value, Tensor) else json.loads(json.dumps(value))


def copied(tensor: Any, values: Tensor) -> None:
    tensor.copy_(values)


def test_everything_comes_back() -> None:
    part, model = begun()
    held = AmidTask([("everything", part)], model)
    for number in (1, 2, 3):
        part.step(model, number)
    kept = plain(held.read())

    other, its_model = begun()
    sums, entries, own = other.read()
    AmidTask([("everything", other)], its_model).put_back(kept, copied)
    layer = its_model.get_submodule("0")
    weight = next(layer.parameters())
    assert (other.steps, other.name, other.own.seen) == (3, "step 3", 30)
    assert other.sums.tolist() == [6.0, 6.0] and float(other.scalar) == 3.0
    assert other.by_module.keys() == {layer} and other.by_module[layer].tolist() == [1.5]
    assert list(other.by_weight.items()) == [(weight, 9)]
    infinite = float("inf")
    assert other.by_place == {(0, "a"): [], (1, "b"): [1, infinite], (2, "b"): [2, infinite], (3, "b"): [3, infinite]}
    assert [entry.tolist() for entry in other.list] == [[0.0], [1], [2], [3]]
    assert other.queue == deque([2, 3]) and other.queue.maxlen == 2
    assert other.labels == {"label 1", "label 2", "label 3"}
    assert isinstance(other.pair, Pair) and (other.pair.low, other.pair.high.tolist()) == (3, [6.0])
    assert (other.fixed.count, other.fixed.sums.tolist()) == (3, [6.0])
    assert torch.equal(torch.randn(4, generator=other.rng), torch.randn(4, generator=part.rng))
    assert other.late is not None and other.late.dtype == torch.bfloat16 and other.late.tolist() == [3.0, 3.0]
    assert other.late_rng is not None and other.late_rng.initial_seed() == 3
    assert other.gate.weight.tolist() == [6.0, 6.0] and other.gate.mean.tolist() == [3.0, 3.0]
    assert other.gate.temperature == 0.125
    # whoever refers to what was there sees what came
    assert (other.sums, other.list, other.own) == (sums, entries, own) and other.own.method is other
    assert other.own.mask.tolist() == [0.0], "the next step makes its own"
    assert other.batch is None, "what only a step makes is left out"
    assert other.settings is not None and other.context.seed == 0


def test_what_no_step_wrote_to_is_not_kept() -> None:
    """An importance for each weight, say, which `before_task` makes or the state before holds."""
    part, model = begun()
    held = AmidTask([("everything", part)], model)
    part.step(model, 1)
    attributes = held.read()["0:everything"]["attributes"]
    assert "sums" in attributes and "scalar" in attributes
    assert not {"fisher", "view", "settings", "context", "read"} & attributes.keys()
    # written to, it is kept
    part.fisher.mul_(2)
    assert held.read()["0:everything"]["attributes"]["fisher"]["tensor_values"].tolist() == [2.0, 2.0, 2.0]


def test_a_view_of_a_weight_is_the_weights_own() -> None:
    part, model = begun()
    held = AmidTask([("everything", part)], model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert "view" not in held.read()["0:everything"].get("attributes", {})


def test_parts_of_one_name_keep_their_own() -> None:
    first, model = begun()
    second, _ = begun()
    held = AmidTask([("twin", first), ("twin", second)], model)
    first.steps = 4
    second.steps = 9
    kept = plain(held.read())
    others = (begun()[0], begun()[0])
    AmidTask([("twin", others[0]), ("twin", others[1])], model).put_back(kept, copied)
    assert [other.steps for other in others] == [4, 9]


def test_what_a_method_lets_go_of_is_not_kept_in_memory() -> None:
    part, model = begun()
    held = AmidTask([("everything", part)], model)
    before = weakref.ref(part.fisher)
    part.fisher = torch.full((3,), 2.0)
    assert before() is None
    assert held.read()["0:everything"]["attributes"]["fisher"]["tensor_values"].tolist() == [2.0, 2.0, 2.0]
