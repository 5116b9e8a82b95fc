"""What second implementations share: the loop's batches, the model's own loss and a hand-written AdamW with clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Batch, Method
from orchestrator.training.batches import global_batches
from orchestrator.training.learner import Learner


@dataclass(frozen=True)
class GlobalBatch:
    """A step's examples as one batch, and how many labels the head knows by then."""

    batch: Batch
    num_labels: int


def batches_of(learner: Learner, task: int) -> list[GlobalBatch]:
    """The global batches of a task, in the loop's order."""
    features, training = learner.features(task), learner.sequence.training
    found = []
    for epoch in range(training.epochs):
        for chosen in global_batches(len(features), training.global_batch, learner.sequence.seed, task, epoch):
            batch = learner.family.collate([features[i] for i in chosen])
            found.append(GlobalBatch(batch, len(learner.stream.labels_until(task + 1))))
    return found


def mean_loss(model: nn.Module | Callable[..., Any], step: GlobalBatch) -> Tensor:
    """The mean loss over real answer tokens (or examples), by the model's own loss."""
    source, labels = step.batch.source, step.batch.labels
    inputs = {"input_ids": source.ids, "attention_mask": source.mask}
    if labels.ndim == 1:
        return F.cross_entropy(model(**inputs).logits[:, : step.num_labels], labels)
    loss: Tensor = model(**inputs, labels=labels).loss
    return loss


class Adam:
    """AdamW as torch documents it, written anew; clips the norm of all gradients to 1 first."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, decay: float = 0.01) -> None:
        self.parameters, self.lr, self.decay, self.steps = list(parameters), lr, decay, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Iterable[Tensor], decayed: int = 10**9) -> None:
        """`decayed`: how many of the parameters, from the first on, decay (if they are matrices)."""
        gradients = list(gradients)
        self.steps += 1
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        scale = min(1.0, 1.0 / (norm + 1e-6))
        for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            g = g * scale
            if i < decayed and p.ndim > 1:
                p.mul_(1 - self.lr * self.decay)
            self.first[i] = 0.9 * self.first[i] + 0.1 * g
            self.second[i] = 0.999 * self.second[i] + 0.001 * g * g
            m = self.first[i] / (1 - 0.9**self.steps)
            v = self.second[i] / (1 - 0.999**self.steps)
            p.sub_(self.lr * m / (v.sqrt() + 1e-8))


def assert_near(found: Tensor, expected: Tensor, name: str, tolerance: float = 1e-6) -> None:
    """Equal up to the rounding of float64 after a few steps."""
    difference = (found - expected).norm() / expected.norm().clamp(min=1e-6)
    assert difference < tolerance, f"{name}: {difference:.2e}"


class Noise(Method):
    """A plug-in that gives every weight a gradient, after the tuning method has masked its own."""

    def before_optimizer_step(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.add_(1.0)
