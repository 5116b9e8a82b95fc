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

from methods.base import Context, Settings, State, TuningMethod, at_least_float32
from methods.batch import Batch
from methods.masking.output_units import in_block
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost
from methods.shared.linears import target_linears, usual_targets
from methods.shared.tensors import freeze_all_but

if TYPE_CHECKING:
    from peft.tuners.osf import OSFModel
    from peft.tuners.osf.layer import OSFLayer


Share = Annotated[float, Field(ge=0, lt=1)]

_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BERT = ("query", "key", "value", "intermediate.dense", "output.dense")
_USUAL = {
    # wi in the first version, wi_0 and wi_1 in the gated one
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
        # workers exchange them one by one: the order is part of the protocol
        yield self.u.data
        yield self.s.data
        yield self.v.data
        layer = self.layer
        # what the trained factors were is kept beside them: the change of the weight is the difference of two products
        yield from layer._osf_U_low_init.values()
        yield from layer._osf_S_low_init.values()
        yield from layer._osf_V_low_init.values()
        # at most one of the two is there: peft does not keep what the square factor's other half determines
        yield from layer._osf_U_high.values()
        yield from layer._osf_V_high.values()

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
        space={"preserved": (0.25, 0.5, 0.75)},
        no_output_units="it trains singular factors, which are no output units",
        per_task_weights="each task trains factors of its own, merged into the weights at its end",
        not_sharded="it trains factors of whole weights",
        not_quantised="it trains singular factors of the weights themselves",
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
        head = set(map(id, self.head))
        found = {}
        for name, linear in target_linears(model, names).items():
            # a target that the user names may also fit a pooler, outside the blocks; and a head trains as it is
            if in_block(name) and id(linear.weight) not in head:
                found[name] = linear
        return found

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, linear in self._targets(model).items():
            found[f"{name}.weight"] = linear.weight
        head = set(map(id, self.head))
        for name, parameter in model.named_parameters():
            if id(parameter) in head:
                found[name] = parameter
        return found

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        # by their factors, which are made in `before_task`
        return self.weights(model)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        from peft import OSFConfig
        from peft.tuners.osf import OSFModel
        from peft.tuners.osf.layer import OSFLayer

        targets = self._targets(model)
        share = preserved_share(self.settings.preserved, task_id)
        ranks: dict[str, int | float] = {}
        for name, linear in targets.items():
            # peft searches each pattern anywhere in a name, and the first that it finds wins
            exactly = f"^{re.escape(name)}$"
            ranks[exactly] = self._rank(name, linear.weight, share)
        self.tuner = OSFModel(model, OSFConfig(target_modules=list(targets), rank_pattern=ranks), "default")
        self.layers = []
        for module in model.modules():
            if isinstance(module, OSFLayer):
                self.layers.append(Subspaces(module))
        # singular vectors are unique up to their sign at best, so workers may have found different ones
        for layer in self.layers:
            for tensor in layer.tensors():
                tensor.copy_(self.context.from_first_worker(tensor))
        # peft froze it
        for parameter in self.head:
            parameter.requires_grad_(True)

    def _rank(self, name: str, weight: Tensor, share: float) -> int:
        """How many singular directions of a layer stay."""
        # of several patterns that fit, the last one decides
        for pattern, own in self.settings.ranks.items():
            if re.search(pattern, name):
                share = own
        return max(1, int(min(weight.shape) * share))

    def after_optimizer_step(self, model: nn.Module) -> None:
        if self.settings.project:
            for layer in self.layers:
                layer.project()

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        assert self.tuner is not None
        inside = 0.0
        whole = 0.0
        for layer in self.layers:
            inside_layer, whole_layer = layer.leakage()
            inside += inside_layer
            whole += whole_layer
        leakage = 0.0
        if whole:
            leakage = (inside / whole) ** 0.5
        # a new list: the old one may be part of a state that was handed out
        self.leaked = [*self.leaked, leakage]
        # not unload(), which gives the weights from before the task
        self.tuner.merge_and_unload()
        model.requires_grad_(False)
        for parameter in self.head:
            parameter.requires_grad_(True)
        self.tuner = None
        self.layers = []

    def state_dict(self) -> State:
        if not self.leaked:
            return {}
        return {"leakage": self.leaked}

    def load_state_dict(self, state: State) -> None:
        self.leaked = list(state["leakage"])
