"""GraftLLM: each task's weights stored as the compressed change from the model before training (arXiv 2505.18502)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from methods.base import Context, Method, Settings, trainable
from methods.batch import Batch
from methods.masking.output_units import group_of, in_block
from methods.merging import delta_svd
from methods.seam.card import Card
from methods.seam.stored_form import StoredForm

# What is stored as it is
WHOLE = ""
EMBEDDING = "embedding"

# Of the 1,000 and 1,400 directions that the released script keeps, 20 have 8 bits and 180 have 4
RELEASED_BITS = ((0.02, 8), (0.18, 4), (0.8, 2))


class GraftllmSettings(Settings):
    """The shares of directions and the bits are those of the released script, for a width of 4,096."""

    attention: float = Field(0.25, gt=0, le=1, description="share of an attention matrix's singular directions")
    ffn: float = Field(0.35, gt=0, le=1, description="the same of all other matrices")
    energy: float = Field(
        1.0, gt=0, le=1, description="of those other matrices no more directions than make up this share of sum s^2"
    )
    embedding: float = Field(
        0.1, gt=0, le=1, description="share of an embedding's or a vocabulary head's entries, the largest; 1: as it is"
    )
    bits: tuple[tuple[float, int], ...] = Field(
        RELEASED_BITS,
        description="[share of the kept directions, bits of an entry], from the largest direction on: 2, 4, 8, 16, 32",
    )
    group: int = Field(128, ge=1, description="entries of a singular vector that are quantised together")

    @field_validator("bits")
    @classmethod
    def _are_shares(cls, bands: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        for share, width in bands:
            if width not in delta_svd.WIDTHS:
                raise ValueError(f"{width} bits: expected one of {', '.join(map(str, delta_svd.WIDTHS))}")
            if not 0 < share <= 1:
                raise ValueError(f"a share of {share}: expected more than 0, and 1 at most")
        total = math.fsum(share for share, _ in bands)
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"the shares add up to {total:g}: expected 1")
        return bands


class Graftllm(StoredForm, Method):
    """After each task theta - theta_0 is compressed; that is stored, and theta_0 + its reconstruction is scored and trained on.

    theta_0, the model before training, is not stored again. By kind of module: a matrix becomes its largest singular
    directions (a share for attention; for the others another one, or fewer that make up `energy`, the paper's beta), u and v of
    the first ones in 8 bits, of the next in 4 and of most in 2; of an embedding or vocabulary head the largest entries
    stay, with a bit for each that says where. The task head, norms and biases are stored as they are, and so is whatever would
    not become smaller: with shares of 1 and 32 bits that is all, and training is plain. Directions that are rounding alone are
    left out, whatever the share.

    Departures: the paper's packs are of single tasks, each from the base model, and a router chooses among them; here tasks
    train the same weights one after another, so there is one pack, of all tasks so far, made anew after each. GPTQ, which
    reads texts to round, is left out: each entry goes to the nearest of evenly spaced values of its group. A group
    lies along a singular vector, as the released code's of v do; its groups of u run over directions, of which a small
    matrix keeps few. The released code has fixed ranks for both kinds, which are the defaults, and leaves
    embeddings out, for which the paper's share could not be looked up: 0.1 and bfloat16 are ours. What other parts keep of
    the weights after a task, such as an anchor, is of those before the compression.
    """

    Settings = GraftllmSettings
    card = Card(
        summary="weights are stored as the low-rank, quantised change from the model before training",
        paper="2505.18502",
        needs=("boundaries",),
        memory="1 copy of the model's weights; a checkpoint is a fraction of theirs",
        space={"attention": [0.1, 0.25, 0.5], "ffn": [0.1, 0.35, 0.5], "embedding": [0.05, 0.1, 0.3]},
        requires_shared_weights=True,
        requires_own_weights=True,
        strength_zero={"attention": 1.0, "ffn": 1.0, "embedding": 1.0, "bits": [[1.0, 32]]},
        strong={"attention": 0.25, "ffn": 0.35, "embedding": 0.1, "bits": RELEASED_BITS},
        not_sharded="it compares whole weights with the whole model before training",
    )

    def __init__(self, settings: GraftllmSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.base: dict[str, Tensor] = {}
        self.numbers: dict[str, float] = {}

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        """Raises ValueError where nothing that trains is a matrix of the model before training."""
        self._load()
        kinds = self._kinds(model)
        for name in trainable(model):
            if kinds.get(name):
                return
        raise ValueError("graftllm: no matrix of the model itself trains, so there is no change to compress")

    def _load(self) -> None:
        """Read the model before training, once."""
        if not self.base:
            self.base = dict(self.context.model_weights(""))

    def _kinds(self, model: nn.Module) -> dict[str, str]:
        """How each matrix of the model before training is stored, by name: "attention", "ffn" or "embedding"."""
        tables = {}
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                tables[id(module.weight)] = len(module.weight)
        # a vocabulary head that is no embedding at the same time has a row for each token too
        vocabulary = max(tables.values(), default=0)
        kinds = {}
        for name, parameter in model.named_parameters():
            # a task head is new, and no change of anything
            if name not in self.base or parameter.ndim != 2:
                continue
            is_head = not in_block(name) and len(parameter) == vocabulary
            if id(parameter) in tables or is_head:
                kinds[name] = EMBEDDING
            else:
                kinds[name] = group_of(name)
        return kinds

    @torch.no_grad()
    def packed(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._load()
        kinds = self._kinds(model)
        stored: dict[str, Tensor] = {}
        lost: dict[str, float] = defaultdict(float)
        changed: dict[str, float] = defaultdict(float)
        for name, weight in weights.items():
            kind = kinds.get(name, WHOLE)
            parts = self._packed(name, weight, kind)
            stored |= parts
            if name not in self.base:
                continue
            exact = weight.cpu().double()
            changed[kind] += float((exact - self.base[name].double()).square().sum())
            if name not in parts:
                lost[kind] += float((exact - self._unpacked(name, parts).double()).square().sum())
        whole = delta_svd.num_bytes_of(weights)
        size = delta_svd.num_bytes_of(stored)
        self.numbers = {"stored_bytes": size, "stored_share": size / whole, **_relative_errors(lost, changed)}
        return stored

    def _packed(self, name: str, weight: Tensor, kind: str) -> dict[str, Tensor]:
        """What is stored of one weight, by name: parts of it under `name/...`, or the weight itself under its name."""
        s: GraftllmSettings = self.settings
        whole = {name: weight}
        if kind == WHOLE or (kind == EMBEDDING and s.embedding == 1):
            return whole
        delta = weight - self.base[name].to(weight.device)
        if kind == EMBEDDING:
            parts = delta_svd.pack_entries(delta, s.embedding)
        else:
            share = getattr(s, kind)
            rank = max(1, round(share * min(delta.shape)))
            vectors, values = delta_svd.largest_directions(delta, rank)
            # a decomposition may differ in its last bits from worker to worker
            vectors = self.context.from_first_worker(vectors)
            values = self.context.from_first_worker(values)
            rank = min(rank, delta_svd.numerical_rank(values, delta.shape))
            if kind == "ffn":
                rank = min(rank, delta_svd.energy_rank(values, s.energy))
            parts = delta_svd.pack_matrix(vectors[:rank], values[:rank], s.bits, s.group, weight.dtype)
        if delta_svd.num_bytes_of(parts) >= delta_svd.num_bytes_of(whole):
            return whole
        stored = {}
        for part, tensor in parts.items():
            stored[f"{name}/{part}"] = tensor
        return stored

    @torch.no_grad()
    def unpacked(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._load()
        weights = {}
        for name, parts in _by_weight(stored).items():
            weights[name] = self._unpacked(name, parts)
        return weights

    def _unpacked(self, name: str, stored: Mapping[str, Tensor]) -> Tensor:
        """The weight that its stored parts give."""
        s: GraftllmSettings = self.settings
        if name in stored:
            return stored[name]
        base = self.base[name]
        parts = {}
        # on the CPU and in float64: a process that has another device gives the same weights
        for path, tensor in stored.items():
            parts[path.removeprefix(f"{name}/")] = tensor.cpu()
        if delta_svd.KEPT in parts:
            change = delta_svd.unpack_entries(parts, base.shape)
        else:
            change = delta_svd.unpack_matrix(parts, base.shape, s.bits, s.group, base.dtype)
        return (base.double() + change).to(base.dtype)

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`stored_bytes` of the weights, their `stored_share` of the bytes of plain ones, and the relative error
        ||theta - reconstruction|| / ||theta - theta_0||, of all and of each kind that is compressed. Smaller is better.
        """
        return self.numbers


def _by_weight(stored: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The stored tensors of each weight, by the weight's name."""
    grouped: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in stored.items():
        # no parameter's name has a slash
        grouped[path.partition("/")[0]][path] = tensor
    return dict(grouped)


def _relative_errors(lost: Mapping[str, float], changed: Mapping[str, float]) -> dict[str, float]:
    """The errors by what they are called, from squared norms of what was lost and of what training had changed."""
    errors = {"relative_error": _ratio(sum(lost.values()), sum(changed.values()))}
    for kind in sorted(changed):
        if kind != WHOLE:
            errors[f"relative_error_{kind}"] = _ratio(lost.get(kind, 0.0), changed[kind])
    return errors


def _ratio(lost: float, changed: float) -> float:
    if not changed:
        return 0.0
    return math.sqrt(lost / changed)
