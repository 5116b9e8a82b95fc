"""Chat vector: what made an instruct model of its base, added to what is scored (arXiv 2310.04799)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import OWN_MODEL, Context, Method, Settings
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.scored_weights import ScoredWeights


class ChatVectorSettings(Settings):
    """The two models, and how much of their difference is added. The paper tries lambda 0.5 and 1."""

    instruct: str = Field("", description="a local folder or hub id of the instruct model; it has to be given")
    base: str = Field("", description="that of the model it was made from; empty: the model before training")
    scale: float = Field(1.0, ge=0, allow_inf_nan=False, description="lambda, the factor on the vector")


def plain_name(name: str) -> str:
    """The name that a parameter has in the model as it comes, without an adapter around its layer."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def cosine(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Cosine between two models' worth of tensors, each taken as one vector; 0 where one of them is zero."""
    dot = 0.0
    squares = 0.0
    other_squares = 0.0
    for name, tensor in one.items():
        a = tensor.double()
        b = other[name].double()
        dot += float((a * b).sum())
        squares += float(a.square().sum())
        other_squares += float(b.square().sum())
    if not squares or not other_squares:
        return 0.0
    return dot / math.sqrt(squares * other_squares)


class ChatVector(ScoredWeights, CacheFields, Method):
    """After each task theta + lambda (theta_inst - theta_base) is scored; training goes on from theta without it.

    All parameters of the model take part but the task head, which no saved model has; the paper does it once, after
    continual pretraining, and so does the last task here. `cosine` tells what the paper checks: that theta_inst -
    theta_base and theta - theta_base are nearly at right angles. (With adapters theta is that of the layers beneath them,
    which do not move: there is no cosine.) Models whose tensors have other names or shapes, as with a larger
    vocabulary, are refused.
    """

    Settings = ChatVectorSettings
    card = Card(
        summary="add instruct minus base model to what is scored; set `instruct` to a folder or hub id",
        paper="2310.04799",
        needs=("boundaries",),
        memory="2 copies of the model's weights; a checkpoint holds the weights twice",
        space={"scale": [0.5, 1.0]},
        requires_shared_weights=True,
        strength_zero={"scale": 0.0},
        strong={"scale": 1.0},
        # without a download there is no instruct model
        quick={"instruct": OWN_MODEL},
        not_sharded="it reads two whole models on each worker",
        not_quantised="it adds a difference of two models to the weights themselves",
    )

    def __init__(self, settings: ChatVectorSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.base: dict[str, Tensor] = {}
        self.vector: dict[str, Tensor] = {}
        self.cosine: float | None = None

    def cache_fields(self, task_id: int) -> Mapping[str, Any]:
        fields = self.settings.model_dump()
        for which in ("instruct", "base"):
            name = fields[which]
            # by its content: a folder may get other weights under its old name
            if name not in ("", OWN_MODEL):
                fields[which] = self.context.model_identity(name)
        return fields

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        """Raises ValueError unless both models have each tensor of the other and of this one, in its shape."""
        if not self.settings.instruct:
            raise ValueError("chat_vector.instruct: give the instruct model's local folder or hub id")
        shapes = {}
        for name, parameter in model.named_parameters():
            shapes[plain_name(name)] = parameter.shape
        models = {which: self._read(which) for which in ("instruct", "base")}
        # an untied head, say, that one of them alone has
        unpaired = sorted(models["instruct"].keys() ^ models["base"].keys())
        if unpaired:
            raise ValueError(
                f"chat_vector: one of the instruct and the base model alone has a parameter {unpaired[0]!r}"
            )
        for which, weights in models.items():
            for name, tensor in weights.items():
                if name not in shapes:
                    raise ValueError(f"chat_vector.{which}: the model that is trained has no parameter {name!r}")
                if tensor.shape != shapes[name]:
                    raise ValueError(
                        f"chat_vector.{which}: parameter {name!r} has the shape {list(tensor.shape)}, and "
                        f"{list(shapes[name])} in the model that is trained"
                    )

    def _read(self, which: str) -> Mapping[str, Tensor]:
        name = getattr(self.settings, which)
        try:
            return self.context.model_weights(name)
        except ValueError as error:
            raise ValueError(f"chat_vector.{which}: {error}") from error

    def _load(self) -> None:
        """Read both models, once: their difference is the same after every task."""
        if self.vector:
            return
        instruct = self._read("instruct")
        self.base = dict(self._read("base"))
        for name, tensor in self.base.items():
            self.vector[name] = instruct[name] - tensor

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self._load()
        moved = {}
        # a frozen layer beneath an adapter says nothing of what was learnt
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name in self.base:
                moved[name] = parameter.cpu() - self.base[name]
        self.cosine = None
        if moved:
            self.cosine = cosine(moved, self.vector)

    @torch.no_grad()
    def scored(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._load()
        found = dict(weights)
        for name, parameter in model.named_parameters():
            change = self.vector.get(plain_name(name))
            if change is not None:
                weight = found.get(name, parameter)
                found[name] = weight + self.settings.scale * change.to(weight)
        return found

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`cosine` between theta_inst - theta_base and theta - theta_base, over the parameters that trained."""
        if self.cosine is None:
            return {}
        return {"cosine": self.cosine}
