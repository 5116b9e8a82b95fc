"""MIGU: magnitude-based gradient updating (arXiv 2406.17245)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Context, Method, State
from methods.batch import Batch
from methods.masking.clusters import clustered_units_to_mask, clusters_of_layers
from methods.masking.diagnostics import kept_by_samples, kept_overlap, kept_share, moved_units, update_norm
from methods.masking.magnitudes import Magnitudes, example_magnitudes
from methods.masking.migu_settings import MiguSettings
from methods.masking.output_units import (
    MaskableWeight,
    masked_count,
    ratios_of,
    weights_to_mask,
    zero_unit_gradients,
)
from methods.masking.row_sparse import RowSparseLayer, exchange_rows, row_sparse_layers
from methods.masking.selection import Selection, units_below_quantile
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.linears import by_units
from methods.shared.shapes import check_outputs
from methods.shared.shards import sum_of_parts, whole
from methods.shared.tensors import at_least_float32, generator

SAMPLES = 100  # examples a task for the overlap, as in the paper's section 5.3, and for co-magnitude


class Migu(CacheFields, Method):
    """Zero the gradients of the output units with the smallest n_k = mean over tokens of |y_k|.

    Applies to query, key, value, output and feed-forward layers; for LoRA to the units of A by |A x| and of B by the
    combined output. n is taken over the whole global batch (all micro-batches and workers), after backward and before
    clipping. As in the released code the first task is trained without a mask unless `mask_first_task`. We depart from
    that code in leaving the LM head alone (as the paper says), and padding tokens out of the mean. AdamW's momentum and
    weight decay still move masked units, in the paper's code as here, unless `freeze_masked`.

    Where a step is one micro-batch on each worker, the units are known before its backward pass, which then leaves out the
    gradients of masked ones (see `methods.masking.row_sparse`): the same up to rounding, in less time. Not where another
    part of the method looks at gradients or adds to the loss, nor with clusters or `released`.

    Clusters are made when a task begins, of equal size to one unit: by k-means of the units' weights (columns at length 1),
    or of the units' magnitudes over examples (units at length 1). Those of the smallest mean importance are masked, as many
    as the ratio has room for. The released code splits the co-magnitude graph by spectral clustering instead.

    With `masks: false` nothing is masked: plain training, bit for bit, with the numbers that MIGU's are compared with (the
    paper's overlap of tasks under fine-tuning, section 5.3). From the second task on its checkpoints are its own, since those
    of training without the plug-in lack these numbers.
    """

    Settings = MiguSettings
    card = Card(
        summary="update only the output units that are large",
        paper="2406.17245",
        needs=("boundaries",),  # the end of the first task, which trains without a mask
        memory="one number for each output unit; the masked units if frozen; "
        "1 copy of the linear layers on the CPU for diagnostics",
        space={"ratio": [0.1, 0.2, 0.3, 0.5, 0.7]},
        requires_output_units=True,
        strength_zero={"ratio": 1.0, "mask_first_task": True},
        strong={"ratio": 0.3},
    )

    def __init__(self, settings: MiguSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.weights: list[MaskableWeight] = []
        self.ratios: list[float] = []
        self.magnitudes: Magnitudes | None = None
        self.selection = Selection((), ())
        self.row_sparse: list[RowSparseLayer] = []
        self.masked: list[Tensor] = []  # of the present step, where they are known before its backward pass
        self.rng: torch.Generator | None = None
        self.clusters: list[Tensor] = []
        self.frozen: list[tuple[Tensor, Tensor, Tensor]] = []  # what `after_optimizer_step` puts back
        self.masks = False
        self.measures = False
        self.steps = 0
        self.masked_steps: list[Tensor] = []  # for each layer and unit, the steps of this task that masked it
        self.start: dict[str, Tensor] = {}
        self.kept_samples: dict[str, dict[str, Tensor]] = {}  # by task and layer: the samples that keep each unit
        self.numbers: dict[str, float | list[Any]] = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0 and not self.settings.mask_first_task:
            return None
        # Whether task 1 was masked shows in its own entry; after it the flag no longer acts.
        without_effect = {"mask_first_task"}
        # absent where it says what all checkpoints before it was there did
        if self.settings.masks:
            without_effect.add("masks")
        return self.settings.model_dump(exclude=without_effect)

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        self._choose_weights(model)
        if self.settings.importance == "output":
            measured = {maskable.name: maskable.measured for maskable in self.weights}
            check_outputs(self.context, model, measured, batch)

    def _choose_weights(self, model: nn.Module) -> None:
        s: MiguSettings = self.settings
        if not s.masks and not self.context.shared_weights:
            raise ValueError(
                "migu.masks: false notes how far tasks overlap, and here each task trains weights of its own"
            )
        self.weights = weights_to_mask(model, s.layers, s.released)
        self.ratios = ratios_of(self.weights, s.ratio)
        self.selection = Selection(self.weights, self.ratios)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        s: MiguSettings = self.settings
        self._choose_weights(model)
        acts = task_id > 0 or s.mask_first_task
        self.masks = acts and s.masks
        self.measures = acts and s.diagnostics
        self.steps = 0
        self.masked_steps = []
        for maskable in self.weights:
            self.masked_steps.append(torch.zeros(maskable.num_units, device=maskable.weight.device))
        self.rng = None
        if self.measures:
            self._note_start(model, task_id)
        if not self.masks:
            return
        if s.cluster:
            self.clusters = self._make_clusters(model, task_id, batches)
        if s.importance == "output":
            self.magnitudes = Magnitudes(model, self.weights, s.count_padding, s.per_token_norm)
            if self._units_are_known_early:
                self.row_sparse = row_sparse_layers(self.weights)
        elif s.importance == "random":
            # the seed of the random control, whose masks these are
            self.rng = generator(self.context.seed, "random_mask", task_id)

    def _note_start(self, model: nn.Module, task_id: int) -> None:
        """Keep the weights; and look at an unmasked first task now, whose checkpoint is plain training's as well."""
        # on the CPU: a copy of every linear layer would cost a GPU more memory than the method itself
        self.start = {}
        for maskable in self.weights:
            self.start[maskable.name] = maskable.units.cpu().clone()
        if self.context.shared_weights and task_id == 1 and "0" not in self.kept_samples:
            rng = generator(self.context.seed, "looking", 0)
            batches = self.context.batches(self.context.examples(0), rng)
            self.kept_samples["0"] = self._kept_by_samples(model, batches)

    def _make_clusters(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> list[Tensor]:
        s: MiguSettings = self.settings
        assert s.clusters
        points = []
        if s.cluster == "weights":
            for maskable in self.weights:
                units = by_units(maskable.owner, whole(maskable.weight))
                points.append(nn.functional.normalize(units, dim=0))
        else:
            for sizes in example_magnitudes(self.context, model, self.weights, batches, SAMPLES, s.per_token_norm):
                points.append(nn.functional.normalize(sizes.T, dim=1))
        # one generator for all layers, in their order
        rng = generator(self.context.seed, "clusters", task_id)
        return clusters_of_layers(points, s.clusters, rng)

    @property
    def _units_are_known_early(self) -> bool:
        """Whether the units to mask are known before the backward pass, and masked gradients are of use to nobody."""
        # with clusters or by a quantile, how many units stay is known on the device alone
        by_rank = not (self.settings.cluster or self.settings.released)
        return by_rank and self.context.alone_with_gradients and not self.selection.masks_nothing

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        for layer in self.row_sparse:
            # of several micro-batches the units are known after the last one's forward pass, too late for the others
            layer.active = len(batches) == 1
            layer.kept = None

    def on_batch(self, batch: Batch) -> Batch:
        if self.magnitudes:
            self.magnitudes.see(batch)
        return batch

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        if self.magnitudes:
            # a plug-in listed later may run passes of its own
            self.magnitudes.pause()
        if self.row_sparse and self.row_sparse[0].active:
            choices = self.selection.choose(list(self._importances()))
            self.masked = [choice.masked for choice in choices]
            for layer, choice in zip(self.row_sparse, choices, strict=True):
                layer.kept = choice.kept
        return loss

    def exchanges(self) -> Sequence[nn.Parameter]:
        if not self.context.own_exchange:
            return ()
        return [maskable.weight for maskable in self.weights[: len(self.row_sparse)]]

    def add_gradients(self, model: nn.Module) -> None:
        if self.exchanges():
            exchange_rows(self.row_sparse, self.context.mean_over_workers)

    def before_optimizer_step(self, model: nn.Module) -> None:
        self.steps += 1
        if not self.masks:
            return
        if not self.masked:
            self._mask_gradients()
        for maskable, masked, masked_steps in zip(self.weights, self.masked, self.masked_steps, strict=True):
            masked_steps[masked] += 1
            if self.settings.freeze_masked:
                # a zero gradient does not stop AdamW, whose momentum and weight decay move a unit all the same
                rows = maskable.index_of(masked)
                self.frozen.append((maskable.units, rows, maskable.units[rows]))
        self.masked = []

    def _mask_gradients(self) -> None:
        """Zero the gradients of the units to mask."""
        self.masked = self._units_to_mask(list(self._importances()))
        for maskable, masked in zip(self.weights, self.masked, strict=True):
            zero_unit_gradients(maskable, masked)

    def _importances(self) -> Iterator[Tensor]:
        """What ranks the output units of each layer, [d_out]."""
        if self.magnitudes:
            for _, magnitude_O in self.magnitudes.take(self.context.mean_over_workers):
                yield magnitude_O
            return
        for maskable in self.weights:
            weight = maskable.weight
            if self.rng:
                # each unit's rank in the order in which the random control would mask
                order = torch.randperm(maskable.num_units, generator=self.rng)
                yield torch.argsort(order).to(weight.device, at_least_float32(weight.detach()).dtype)
            elif self.settings.importance == "gradient":
                gradients = maskable.unit_gradients
                assert gradients is not None
                yield maskable.of_all(at_least_float32(gradients.abs()).mean(1))
            else:
                yield maskable.of_all(at_least_float32(maskable.units.abs()).mean(1))

    def _units_to_mask(self, importances: Sequence[Tensor]) -> list[Tensor]:
        """The indices of the units to mask in each layer."""
        if not (self.settings.released or self.clusters):
            return [choice.masked for choice in self.selection.choose(importances)]
        found = []
        for i, importance_O in enumerate(importances):
            if self.settings.released:
                found.append(units_below_quantile(importance_O, self.ratios[i]))
            else:
                # rounding down to whole clusters masks at most as many as plain MIGU would
                room = masked_count(self.ratios[i], len(importance_O))
                found.append(clustered_units_to_mask(importance_O, room, self.clusters[i]))
        return found

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for units, masked, before in self.frozen:
            units[masked] = before
        self.frozen = []

    def measure(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        # the steps are over, and what is measured is the plain model's
        if self.magnitudes:
            self.magnitudes.close()
            self.magnitudes = None
        for layer in self.row_sparse:
            layer.close()
        self.row_sparse = []
        self.clusters = []
        self.numbers = {"kept_share": [kept_share(masked, self.steps) for masked in self.masked_steps]}
        if self.measures:
            self._diagnose(model, task_id, batches)
            self.start = {}

    def _diagnose(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        weights = {}
        num_moved = torch.zeros(())
        for maskable, masked_steps in zip(self.weights, self.masked_steps, strict=True):
            name = maskable.name
            weights[name] = maskable.units.cpu()
            # units that no step let move: momentum and weight decay may have moved them all the same
            always_masked = maskable.held(masked_steps == self.steps).cpu()
            num_moved += moved_units(self.start[name], weights[name], always_masked)
        like = self.weights[0].weight
        self.numbers["moved_though_masked"] = int(sum_of_parts(num_moved.to(like.device), like))
        self.numbers["update_norm"] = update_norm(self.start, weights, like)
        # tasks that train weights of their own have no units in common
        if self.context.shared_weights:
            self.kept_samples[str(task_id)] = self._kept_by_samples(model, batches)
            # a checkpoint's names are text, and text sorts "10" before "2"
            by_task = []
            for task in sorted(self.kept_samples, key=int):
                by_task.append(self.kept_samples[task])
            self.numbers["overlap"] = kept_overlap(by_task)

    def _kept_by_samples(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """For each layer and unit, how many of the task's samples would keep it by output magnitude."""
        norm = self.settings.per_token_norm
        sizes_by_layer = example_magnitudes(self.context, model, self.weights, batches, SAMPLES, norm)
        kept = {}
        for maskable, ratio, sizes in zip(self.weights, self.ratios, sizes_by_layer, strict=True):
            kept[maskable.name] = kept_by_samples(sizes, masked_count(ratio, sizes.shape[1])).cpu()
        return kept

    def state_dict(self) -> State:
        if not self.kept_samples:
            return {}
        return {"kept_samples": self.kept_samples}

    def load_state_dict(self, state: State) -> None:
        self.kept_samples = {task: dict(layers) for task, layers in state["kept_samples"].items()}

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`kept_share` of each layer; with `diagnostics` also `overlap` of tasks [T, T], `moved_though_masked` (units that
        every step masked) and `update_norm` (of the maskable weights).
        """
        return self.numbers
