"""Orthogonal subspace fine-tuning, "sculpting subspaces" (arXiv 2504.07097), by peft: W's large singular directions stay.

Shapes: W [O, I] = U_h S_h V_h + U_l S_l V_l.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.inclora import freeze_all_but
from methods.base import Context, Settings, State, TuningMethod, at_least_float32
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost
from methods.shared.linears import target_linears, usual_targets

if TYPE_CHECKING:
    from peft.tuners.osf import OSFModel
    from peft.tuners.osf.layer import OSFLayer


Share = Annotated[float, Field(ge=0, lt=1)]


_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


_BERT = ("query", "key", "value", "intermediate.dense", "output.dense")


_USUAL = {
    "t5": ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),
    "bert": _BERT,
    "roberta": _BERT,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"), _LLAMA),
}


class OsfSettings(Settings):
    """`preserved`: peft's default for one task. The paper lets it grow with the tasks, as peft's documentation does with
    (t - 1) / T at task t: give a list.
    """

    preserved: Share | tuple[Share, ...] = Field(
        0.5, description="share of a layer's singular directions that stay, at least one; a list: by task"
    )
    ranks: dict[str, Share] = Field(default_factory=dict, description="exceptions, by a pattern in the layer's name")
    project: bool = Field(False, description="project the weights too after each step, not their gradients alone")
    targets: tuple[str, ...] | None = Field(None, description="module names; none: all linear layers of the blocks")


def preserved_share(value: float | Sequence[float], task_id: int) -> float:
    """A task's share; of a list that is too short, the last."""
    if isinstance(value, Sequence):
        return float(value[min(task_id, len(value) - 1)])
    return float(value)


class Subspaces:
    """What peft's layer holds, and the projections off its preserved directions."""

    def __init__(self, layer: OSFLayer) -> None:
        self.layer = layer
        factors: Any = layer.osf_svd_params["default"]
        self.u: nn.Parameter = factors["U_low"]
        self.s: nn.Parameter = factors["S_low"]
        self.v: nn.Parameter = factors["V_low"]

    def tensors(self) -> Iterator[Tensor]:
        """All factors, trained and kept."""
        yield from (self.u.data, self.s.data, self.v.data)
        layer = self.layer
        for kept in (
            layer._osf_U_low_init,
            layer._osf_S_low_init,
            layer._osf_V_low_init,
            layer._osf_U_high,
            layer._osf_V_high,
        ):
            yield from kept.values()

    def without_left(self, x: Tensor) -> Tensor:
        """(1 - U_h U_h^T) x. Where U = [U_h U_l] is square, peft keeps only U_l, and 1 - U_h U_h^T = U_l U_l^T."""
        if "default" in self.layer._osf_U_high:
            high = self.layer._osf_U_high["default"]
            return x - high @ (high.T @ x)
        low = self.layer._osf_U_low_init["default"]
        return low @ (low.T @ x)

    def without_right(self, x: Tensor) -> Tensor:
        """x (1 - V_h^T V_h)."""
        if "default" in self.layer._osf_V_high:
            high = self.layer._osf_V_high["default"]
            return x - (x @ high.T) @ high
        low = self.layer._osf_V_low_init["default"]
        return (x @ low.T) @ low

    @torch.no_grad()
    def project(self) -> None:
        """Take from the trained factors what has come to lie in the preserved directions."""
        self.u.copy_(self.without_left(self.u))
        self.v.copy_(self.without_right(self.v))

    @torch.no_grad()
    def leakage(self) -> tuple[float, float]:
        """‖change‖² inside the preserved left or right directions, and ‖change‖² of the whole weight."""
        change = at_least_float32(self.layer.get_delta_weight("default"))
        clean = self.without_right(self.without_left(change))
        return float((change - clean).square().sum()), float(change.square().sum())


class Osf(Cost, CacheFields, TuningMethod):
    """Every linear layer is split by its singular values; the large part is frozen, and the gradients of U_l and V_l are
    projected off it. After a task the product goes back into W, and the next task splits the new W.

    The paper's share of preserved directions by layer importance is left to `ranks`. Adam's moments and weight decay move
    the factors out of the projected space, so the state notes the leakage of each task (‖part of the weight's change in
    preserved directions‖ / ‖change‖); `project` takes it away. peft cannot preserve nothing: 0 means one direction.
    """

    Settings = OsfSettings
    card = Card(
        summary="full-rank updates orthogonal to each weight's large singular directions",
        paper="2504.07097",
        needs=("boundaries",),
        memory="none between tasks; while training, the singular factors twice",
        space={"preserved": (0.25, 0.5, 0.75), "project": (False, True)},
        no_output_units="it trains singular factors, whose rows are no output channels",
        per_task_weights="each task trains factors of its own, merged into the weights at its end",
    )

    def __init__(self, settings: OsfSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.head: list[nn.Parameter] = []
        self.tuner: OSFModel | None = None
        self.layers: list[Subspaces] = []
        self.leaked: list[float] = []

    def model_cache_fields(self) -> Mapping[str, Any]:
        return {"targets": self.settings.targets}

    def cache_fields(self, task_id: int) -> Mapping[str, Any]:
        return {**self.settings.model_dump(), "preserved": preserved_share(self.settings.preserved, task_id)}

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        self.head = list(head)
        freeze_all_but(model, head)
        self._targets(model)
        return model

    def _targets(self, model: nn.Module) -> dict[str, nn.Linear]:
        names = self.settings.targets or usual_targets(model, _USUAL)
        blocks = target_linears(model, names).items()
        own = {id(p) for p in self.head}
        return {n: m for n, m in blocks if any(part.isdigit() for part in n.split(".")) and id(m.weight) not in own}

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        head = {id(p) for p in self.head}
        trained: dict[str, Tensor] = {f"{name}.weight": m.weight for name, m in self._targets(model).items()}
        return trained | {name: p for name, p in model.named_parameters() if id(p) in head}

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        return self.weights(model)  # by their factors, which are made in `before_task`

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        from peft import OSFConfig
        from peft.tuners.osf import OSFModel
        from peft.tuners.osf.layer import OSFLayer

        targets = self._targets(model)
        share = preserved_share(self.settings.preserved, task_id)
        ranks: dict[str, int | float] = {
            f"^{re.escape(name)}$": self._rank(name, m.weight, share) for name, m in targets.items()
        }
        self.tuner = OSFModel(model, OSFConfig(target_modules=list(targets), rank_pattern=ranks), "default")
        self.layers = [Subspaces(m) for m in model.modules() if isinstance(m, OSFLayer)]
        for layer in self.layers:
            for tensor in layer.tensors():
                tensor.copy_(self.context.from_first_worker(tensor))
        for parameter in self.head:
            parameter.requires_grad_(True)  # peft froze it

    def _rank(self, name: str, weight: Tensor, share: float) -> int:
        """How many singular directions of a layer stay."""
        for pattern, own in self.settings.ranks.items():
            share = own if re.search(pattern, name) else share
        return max(1, int(min(weight.shape) * share))

    def after_optimizer_step(self, model: nn.Module) -> None:
        if self.settings.project:
            for layer in self.layers:
                layer.project()

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        assert self.tuner is not None
        parts = [layer.leakage() for layer in self.layers]
        inside, whole = (sum(part[i] for part in parts) for i in (0, 1))
        self.leaked = [*self.leaked, (inside / whole) ** 0.5 if whole else 0.0]
        # not unload(), which gives the weights from before the task
        self.tuner.merge_and_unload()
        model.requires_grad_(False)
        for parameter in self.head:
            parameter.requires_grad_(True)
        self.tuner, self.layers = None, []

    def state_dict(self) -> State:
        if not self.leaked:
            return {}
        return {"leakage": self.leaked}

    def load_state_dict(self, state: State) -> None:
        self.leaked = list(state["leakage"])
