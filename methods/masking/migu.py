"""MIGU: magnitude-based gradient updating (arXiv 2406.17245)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, at_least_float32, generator
from methods.batch import Batch
from methods.masking.clusters import balanced_kmeans, clustered_rows_to_mask
from methods.masking.diagnostics import kept_by_samples, kept_overlap, kept_share, moved_rows, update_norm
from methods.masking.rows import (
    Magnitudes,
    Rows,
    block_rows,
    chosen_rows,
    example_magnitudes,
    masked_count,
    ratios_of,
    released_rows,
    zero_gradient_rows,
)
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card

SAMPLES = 100  # examples a task for the overlap, as in the paper's section 5.3, and for co-magnitude


class MiguSettings(Settings):
    """`ratio` is the kept share, 1 - T in the paper's terms; its default T = 0.7 keeps 30 %."""

    ratio: float | dict[str, float] = Field(
        0.3, description="share of rows that are updated; or a mapping from attention, ffn or a pattern to shares"
    )
    layers: str = Field("all", description="all, attention, ffn, or a regular expression over layer names")
    mask_first_task: bool = Field(False, description="mask during the first task too (the released code does not)")
    count_padding: bool = Field(False, description="count padding tokens too (the released code does)")
    per_token_norm: bool = Field(False, description="divide each token's magnitudes by their sum over the layer")
    importance: Literal["output", "weight", "gradient", "random"] = Field(
        "output", description="what ranks rows: output magnitude, mean |weight|, mean |gradient|, or chance"
    )
    cluster: Literal["weights", "comagnitude"] | None = Field(
        None, description="mask whole clusters of rows: alike in their weights, or large on the same examples"
    )
    clusters: int | None = Field(None, ge=2, description="clusters a layer")
    freeze_masked: bool = Field(False, description="put masked rows back after the step, which AdamW moves")
    released: bool = Field(False, description="as the released code: the LM head too, padding counted, a quantile")
    diagnostics: bool = Field(
        True, description="overlap of tasks, moved masked rows: a copy in the CPU's memory, a pass a task"
    )

    @field_validator("ratio")
    @classmethod
    def _is_share(cls, ratio: float | dict[str, float]) -> float | dict[str, float]:
        for share in ratio.values() if isinstance(ratio, dict) else [ratio]:
            if not 0 < share <= 1:
                raise ValueError(f"a share must be greater than 0 and less than or equal to 1, found {share}")
        if ratio == {}:
            raise ValueError("the mapping is empty")
        return ratio

    @model_validator(mode="before")
    @classmethod
    def _released_counts_padding(cls, values: Any) -> Any:
        return {"count_padding": True, **values} if isinstance(values, dict) and values.get("released") else values

    @model_validator(mode="after")
    def _agree(self) -> MiguSettings:
        patterns = [self.layers, *(self.ratio if isinstance(self.ratio, dict) else ())]
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no layer group and no regular expression: {error}") from None
        if (self.cluster is None) != (self.clusters is None):
            raise ValueError("cluster and clusters go together")
        reads_outputs = self.importance == "output" or self.cluster == "comagnitude"
        if self.per_token_norm and not reads_outputs:
            raise ValueError(f"per_token_norm: importance {self.importance!r} looks at no outputs")
        if self.count_padding and self.importance != "output":
            raise ValueError(f"count_padding: importance {self.importance!r} counts no tokens")
        if self.released:
            self._check_released()
        return self

    def _check_released(self) -> None:
        fixed = {"layers": "all", "count_padding": True, "per_token_norm": False, "importance": "output",
                 "cluster": None, "freeze_masked": False}  # fmt: skip
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"released: the released code has {name} = {value}, not {getattr(self, name)!r}")
        if isinstance(self.ratio, dict):
            raise ValueError("released: the released code has one ratio for all layers")


def rows_to_mask(magnitude_O: Tensor, ratio: float) -> Tensor:
    """Indices of the floor((1 - ratio) * d_out) rows of smallest magnitude; of equal ones the first."""
    return torch.argsort(magnitude_O, stable=True)[: masked_count(ratio, len(magnitude_O))]


def rows_below_quantile(magnitude_O: Tensor, ratio: float) -> Tensor:
    """The released code's rule: indices of the rows below the (1 - ratio) quantile, interpolated."""
    return (magnitude_O < torch.quantile(magnitude_O, 1 - ratio)).nonzero().flatten()


class Migu(CacheFields, Method):
    """Zero the gradient rows of the output channels with the smallest n_k = mean over tokens of |y_k|.

    Applies to query, key, value, output and feed-forward layers; for LoRA to the rows of A by |A x| and of B by the
    combined output. n is taken over the whole global batch (all micro-batches and workers), after backward and before
    clipping. As in the released code the first task is trained without a mask unless `mask_first_task`. We depart from
    that code in leaving the LM head alone (as the paper says), and padding tokens out of the mean. AdamW's momentum and
    weight decay still move masked rows, in the paper's code as here, unless `freeze_masked`.

    Clusters are made when a task begins, of equal size to one row: by k-means of the weight's rows (columns at length 1), or
    of the rows' magnitudes over examples (rows at length 1). Those of the smallest mean importance are masked, as many as
    the ratio has room for. The released code splits the co-magnitude graph by spectral clustering instead.
    """

    Settings = MiguSettings
    card = Card(
        summary="update only the rows whose outputs are large",
        paper="2406.17245",
        needs=("boundaries",),  # the end of the first task, which trains without a mask
        memory="one number for each row; the masked rows if frozen; 1 copy of the linear layers on the CPU for diagnostics",
        space={"ratio": [0.1, 0.2, 0.3, 0.5, 0.7]},
        requires_output_units=True,
        strength_zero={"ratio": 1.0, "mask_first_task": True},
        strong={"ratio": 0.3},
    )

    def __init__(self, settings: MiguSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.rows: list[Rows] = []
        self.ratios: list[float] = []
        self.magnitudes: Magnitudes | None = None
        self.rng: torch.Generator | None = None
        self.clusters: list[Tensor] = []
        self.frozen: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self.masks = False
        self.steps = 0
        self.masked: list[Tensor] = []  # for each layer and row, the steps of this task that masked it
        self.start: dict[str, Tensor] = {}
        self.kept_samples: dict[str, dict[str, Tensor]] = {}  # by task and layer: the samples that keep each row
        self.numbers: dict[str, float | list[Any]] = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0 and not self.settings.mask_first_task:
            return None
        # Whether task 1 was masked shows in its own entry; after it the flag no longer acts.
        return self.settings.model_dump(exclude={"mask_first_task"})

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        s: MiguSettings = self.settings
        self.rows = released_rows(model) if s.released else chosen_rows(block_rows(model), s.layers)
        self.ratios = ratios_of(self.rows, s.ratio)
        self.masks = task_id > 0 or s.mask_first_task
        self.steps, self.masked = 0, [torch.zeros(len(r.weight), device=r.weight.device) for r in self.rows]
        if not self.masks:
            return
        if s.diagnostics:
            self._note_start(model, task_id)
        if s.cluster:
            self.clusters = self._make_clusters(model, task_id, batches)
        if s.importance == "output":
            self.magnitudes = Magnitudes(model, self.rows, s.count_padding, s.per_token_norm)
        self.rng = generator(self.context.seed, "random_mask", task_id) if s.importance == "random" else None

    def _note_start(self, model: nn.Module, task_id: int) -> None:
        """Keep the weights; and look at an unmasked first task now, whose checkpoint is plain training's as well."""
        self.start = {r.name: r.weight.detach().cpu().clone() for r in self.rows}
        if self.context.shared_weights and task_id == 1 and "0" not in self.kept_samples:
            rng = generator(self.context.seed, "looking", 0)
            self.kept_samples["0"] = self._kept_by_samples(model, self.context.batches(self.context.examples(0), rng))

    def _make_clusters(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> list[Tensor]:
        s: MiguSettings = self.settings
        assert s.clusters
        if s.cluster == "weights":
            points = [nn.functional.normalize(r.weight.detach(), dim=0) for r in self.rows]
        else:
            sizes = example_magnitudes(self.context, model, self.rows, batches, SAMPLES, s.per_token_norm)
            points = [nn.functional.normalize(size.T, dim=1) for size in sizes]
        rng = generator(self.context.seed, "clusters", task_id)
        return [balanced_kmeans(p, s.clusters, rng).to(p.device) for p in points]

    def on_batch(self, batch: Batch) -> Batch:
        if self.magnitudes:
            self.magnitudes.see(batch)
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        if self.magnitudes:
            self.magnitudes.pause()
        return loss

    def before_optimizer_step(self, model: nn.Module) -> None:
        self.steps += 1
        if not self.masks:
            return
        for i, importance_O in enumerate(self._importances()):
            weight, masked = self.rows[i].weight, self._rows_to_mask(i, importance_O)
            zero_gradient_rows(weight, masked)
            self.masked[i][masked] += 1
            if self.settings.freeze_masked:
                self.frozen.append((weight, masked, weight.detach()[masked]))

    def _importances(self) -> Iterator[Tensor]:
        """What ranks the rows of each layer, [d_out]."""
        if self.magnitudes:
            yield from (size for _, size in self.magnitudes.take(self.context.mean_over_workers))
            return
        for rows in self.rows:
            if self.rng:  # each row's place in the order in which the random control would mask
                order = torch.randperm(len(rows.weight), generator=self.rng)
                yield torch.argsort(order).to(rows.weight.device, at_least_float32(rows.weight.detach()).dtype)
            else:
                values = rows.weight.grad if self.settings.importance == "gradient" else rows.weight.detach()
                assert values is not None
                yield at_least_float32(values.abs()).mean(1)

    def _rows_to_mask(self, i: int, importance_O: Tensor) -> Tensor:
        if self.settings.released:
            return rows_below_quantile(importance_O, self.ratios[i])
        if self.clusters:
            room = masked_count(self.ratios[i], len(importance_O))
            return clustered_rows_to_mask(importance_O, room, self.clusters[i])
        return rows_to_mask(importance_O, self.ratios[i])

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for weight, masked, before in self.frozen:
            weight[masked] = before
        self.frozen = []

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.magnitudes:
            self.magnitudes.close()
            self.magnitudes = None
        self.clusters = []
        self.numbers = {"kept_share": [kept_share(masked, self.steps) for masked in self.masked]}
        if self.masks and self.settings.diagnostics:
            weights = {r.name: r.weight.detach().cpu() for r in self.rows}
            always = {r.name: (masked == self.steps).cpu() for r, masked in zip(self.rows, self.masked, strict=True)}
            self.numbers["moved_though_masked"] = sum(
                moved_rows(self.start[n], w, always[n]) for n, w in weights.items()
            )
            self.numbers["update_norm"] = update_norm(self.start, weights)
            if self.context.shared_weights:  # else each task's rows are its own
                self.kept_samples[str(task_id)] = self._kept_by_samples(model, batches)
                tasks = [self.kept_samples[t] for t in sorted(self.kept_samples, key=int)]
                self.numbers["overlap"] = kept_overlap(tasks)
            self.start = {}

    def _kept_by_samples(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """For each layer and row, how many of the task's samples would keep it by output magnitude."""
        norm = self.settings.per_token_norm
        sizes = example_magnitudes(self.context, model, self.rows, batches, SAMPLES, norm)
        return {
            rows.name: kept_by_samples(size, masked_count(ratio, size.shape[1])).cpu()
            for rows, ratio, size in zip(self.rows, self.ratios, sizes, strict=True)
        }

    def state_dict(self) -> State:
        return {"kept_samples": self.kept_samples} if self.kept_samples else {}

    def load_state_dict(self, state: State) -> None:
        self.kept_samples = {task: dict(layers) for task, layers in state["kept_samples"].items()}

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`kept_share` of each layer; with `diagnostics` also `overlap` of tasks [T, T], `moved_though_masked` (rows that
        every step masked) and `update_norm` (of the maskable weights).
        """
        return self.numbers
