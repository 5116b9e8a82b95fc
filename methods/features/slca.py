"""SLCA: a slow backbone, and after each task a head aligned on features drawn from each class's Gaussian (arXiv 2303.05118).

Shapes: B examples or drawn features, d the width of what the head's last layer reads, K labels so far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, State, TuningMethod
from methods.batch import Batch
from methods.seam.card import Card, log_range
from methods.shared.passes import evaluating
from methods.shared.tensors import at_least_float32, generator, outside_autocast, trainable

RIDGE = 1e-4  # on each covariance's diagonal, as released: a class may have fewer texts than d
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


class SlcaSettings(Settings):
    """Published for ViT-B/16; the alignment's are the released code's."""

    backbone: float = Field(0.01, gt=0, le=1, description="rate of the backbone, as a share of the head's")
    epochs: int = Field(5, ge=0, description="rounds of the alignment, each with features drawn anew; 0: none")
    samples: int = Field(256, ge=1, description="features of each class in a round, and in a step of the alignment")
    rate: float = Field(0.01, gt=0, allow_inf_nan=False, description="SGD's rate in the alignment's first round")
    temperature: float = Field(0.1, gt=0, allow_inf_nan=False, description="tau of the normalised logits")


def normalised(logits_BK: Tensor, ends: Sequence[int], temperature: float) -> Tensor:
    """Logits over tau times their magnitude: the mean over tasks of the length of the logits of each task's labels.

    `ends` says how many labels there are after each task; a task that brought none has no length.
    """
    lengths = []
    start = 0
    for end in ends:
        if end > start:
            lengths.append(logits_BK[:, start:end].norm(dim=1, keepdim=True) + 1e-7)
        start = end
    return logits_BK / (temperature * torch.cat(lengths, dim=1).mean(1, keepdim=True))


class Gaussian(NamedTuple):
    """The distribution of a label's features as they were after a task, counted from 0."""

    mean_d: Tensor
    covariance_dd: Tensor
    task: int


def gaussian(count: float, sum_d: Tensor, product_dd: Tensor, task: int) -> Gaussian:
    """The mean, and the unbiased covariance with the ridge, from the sums of features and of their outer products."""
    mean_d = sum_d / count
    # of a single example the covariance is not defined: then the ridge alone
    covariance_dd = (product_dd - count * torch.outer(mean_d, mean_d)) / max(count - 1, 1)
    return Gaussian(mean_d, covariance_dd + RIDGE * torch.eye(len(mean_d)).to(mean_d), task)


class _HeadInputs:
    """Holds what the head's last layer has read in the latest pass, [B, d]."""

    def __init__(self, layer: nn.Module) -> None:
        self.features_Bd = torch.zeros(0, 0)
        self.handle = layer.register_forward_pre_hook(self._take)

    def _take(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.features_Bd = inputs[0].detach()


class Slca(TuningMethod):
    """All parameters train, the backbone at `backbone` times training.lr. Task t's examples compete among its new labels only.

    After each task, mean mu_c and covariance S_c of the features of each of its labels. Then, from the second task on,
    `epochs` rounds of SGD with momentum and a cosine schedule on the head's last layer alone: `samples` features of every
    label seen, drawn from N((0.9 + 0.1 (i + 1) / (t + 1)) mu_c, S_c) with i the task of c counted from 0, and
    cross-entropy of the logits over tau ||l||, ||l|| the mean over tasks of the length of their labels' logits. The next task
    goes on from the head before the alignment. All as the released code.

    Departures: AdamW trains the tasks (the paper: SGD). A label that comes again has the statistics of its newest task, and
    its examples compete with all labels so far. A head with more layers is aligned in its last one.
    """

    Settings = SlcaSettings
    card = Card(
        summary="a slow backbone, and a head aligned on features drawn from each class's Gaussian",
        paper="2303.05118",
        needs=("boundaries",),
        memory="a mean and a covariance for each class, and 1 copy of the head's last layer",
        space={"backbone": (0.001, 0.01, 0.1), "rate": (0.003, 0.01, 0.03), "temperature": (0.05, 0.1, 0.2)},
        # the head's; the backbone's are a hundredth of it
        training_space={"lr": log_range(1e-3, 1e-1)},
        default_lr=1e-2,
        requires_head=True,
        modifies_weights_after_task="it aligns the head after each task",
        quick={"samples": 16},
        no_corpora="it learns classes, and the documents of a corpus have no label",
    )

    def __init__(self, settings: SlcaSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.head: Sequence[nn.Parameter] = ()
        self.gaussians: dict[int, Gaussian] = {}
        # the head's last layer as training left it, a row for each label so far
        self.unaligned: list[Tensor] = []

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        # a model comes with all its parameters trainable, the task head among them
        self.head = tuple(head)
        return model

    def rate_factors(self, model: nn.Module) -> Mapping[str, float]:
        """`backbone` for all that is not in the head."""
        factors = {}
        head_ids = set(map(id, self.head))
        for name, parameter in trainable(model).items():
            if id(parameter) not in head_ids:
                factors[name] = float(self.settings.backbone)
        return factors

    @torch.no_grad()
    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for parameter, saved in zip(self.context.label_units, self.unaligned, strict=False):
            parameter[: len(saved)] = saved.to(parameter.device)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        """The loss with the labels of earlier tasks left out of the softmax, for examples of new labels."""
        if not batch.num_old_classes:
            return loss
        is_new_B = batch.labels >= batch.num_old_classes
        is_old_K = torch.arange(logits.shape[1], device=logits.device) < batch.num_old_classes
        competing_BK = at_least_float32(logits).masked_fill(is_new_B[:, None] & is_old_K, -torch.inf)
        return F.cross_entropy(competing_BK, batch.labels, reduction="sum") / batch.loss_denominator

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        num_labels = self.context.labels[task_id]
        self.unaligned = []
        for parameter in self.context.label_units:
            self.unaligned.append(parameter[:num_labels].detach().clone())
        self._add_statistics(model, task_id, batches)
        if task_id > 0 and self.settings.epochs:
            aligned = self._aligned(task_id)
            for parameter, tensor in zip(self.context.label_units, aligned, strict=True):
                # equal on every worker but for the rounding of its decompositions
                parameter[:num_labels] = self.context.from_first_worker(tensor).to(parameter.dtype)

    def _add_statistics(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Take the Gaussians of the task's labels, in place of older ones of the same labels."""
        weight = self.context.label_units[0]
        # float64: a covariance is a small difference of large sums
        empty = weight.new_zeros(0, dtype=torch.float64)
        size = weight.shape[1]
        count_K = empty.new_zeros(self.context.labels[task_id])
        # a worker may have no example of a label that another one has
        sums: dict[int, Tensor] = defaultdict(lambda: empty.new_zeros(size))
        products: dict[int, Tensor] = defaultdict(lambda: empty.new_zeros(size, size))
        inputs = _HeadInputs(_layer_of(model, weight))
        with evaluating(model):
            for batch in batches:
                self.context.forward(model, batch)
                count_K += torch.bincount(batch.classes, minlength=len(count_K))
                for label in batch.classes.unique().tolist():
                    features_Bd = inputs.features_Bd[batch.classes == label].double()
                    sums[label] = sums[label] + features_Bd.sum(0)
                    products[label] = products[label] + features_Bd.T @ features_Bd
        inputs.handle.remove()
        count_K = self.context.sum_over_workers(count_K)
        for label in count_K.nonzero().flatten().tolist():
            sum_d = self.context.sum_over_workers(sums[label])
            product_dd = self.context.sum_over_workers(products[label])
            self.gaussians[label] = gaussian(float(count_K[label]), sum_d, product_dd, task_id)

    def _aligned(self, task_id: int) -> list[Tensor]:
        """The head's last layer for the labels so far, trained on drawn features from what it is."""
        s: SlcaSettings = self.settings
        parameters = []
        for tensor in self.unaligned:
            parameters.append(nn.Parameter(at_least_float32(tensor.detach().clone())))
        optimizer = torch.optim.SGD(parameters, lr=s.rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=s.epochs)
        ends = self.context.labels[: task_id + 1]
        with torch.enable_grad(), outside_autocast(parameters[0]):
            for epoch in range(s.epochs):
                features_Nd, labels_N = self._drawn(task_id, epoch, parameters[0].dtype)
                for features_Bd, labels_B in zip(features_Nd.split(s.samples), labels_N.split(s.samples), strict=True):
                    optimizer.zero_grad()
                    logits_BK = F.linear(features_Bd, *parameters)
                    F.cross_entropy(normalised(logits_BK, ends, s.temperature), labels_B).backward()
                    optimizer.step()
                schedule.step()
        return [parameter.detach() for parameter in parameters]

    def _drawn(self, task_id: int, epoch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Features of every label seen with their labels, in a random order, the same on every worker."""
        rng = generator(self.context.seed, "slca", task_id, epoch)
        features = []
        labels = []
        for label in sorted(self.gaussians):
            of_label = self.gaussians[label]
            # means of later tasks count more: the backbone has moved since the earlier ones were taken
            shrinkage = 0.9 + 0.1 * (of_label.task + 1) / (task_id + 1)
            root_dd = torch.linalg.cholesky(of_label.covariance_dd.double())
            # drawn on the CPU, so that a run on another device draws the same
            normal_Nd = torch.randn(self.settings.samples, len(root_dd), generator=rng, dtype=torch.float64)
            drawn_Nd = shrinkage * of_label.mean_d.to(root_dd) + normal_Nd.to(root_dd.device) @ root_dd.T
            features.append(drawn_Nd.to(dtype))
            labels.append(torch.full((self.settings.samples,), label, device=root_dd.device))
        order = torch.randperm(self.settings.samples * len(labels), generator=rng).to(labels[0].device)
        return torch.cat(features)[order], torch.cat(labels)[order]

    def state_dict(self) -> State:
        if not self.unaligned:
            return {}
        gaussians = {}
        for label, of_label in self.gaussians.items():
            gaussians[str(label)] = of_label._asdict()
        unaligned = {}
        for number, tensor in enumerate(self.unaligned):
            unaligned[str(number)] = tensor
        return {"gaussians": gaussians, "unaligned": unaligned}

    def load_state_dict(self, state: State) -> None:
        self.gaussians = {}
        for label, of_label in state["gaussians"].items():
            self.gaussians[int(label)] = Gaussian(**of_label)
        # a weight, and a bias where there is one
        self.unaligned = [state["unaligned"][name] for name in sorted(state["unaligned"])]


def _layer_of(model: nn.Module, weight: Tensor) -> nn.Module:
    """The module that a weight belongs to."""
    for module in model.modules():
        if any(parameter is weight for parameter in module.parameters(recurse=False)):
            return module
    raise ValueError("the model has no layer with a unit for each label")
