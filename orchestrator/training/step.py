"""TODO orchestrator.training.step"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.errors import NonFiniteLoss
from orchestrator.models.family import Feature
from orchestrator.training.batches import micro_batches
from orchestrator.training.learner import Learner


def train_step(
    learner: Learner,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Feature],
    place: tuple[int, int],
) -> tuple[float, float]:
    """One optimizer step on a global batch, of which this worker computes its share. Returns (loss, gradient norm).

    The loss is the sum over the global batch divided by its label tokens (generation) or examples (classification).
    """
    family, stack, parallel, training = learner.family, learner.stack, learner.parallel, learner.sequence.training
    units = sum(family.loss_terms(f) for f in batch)
    size = training.micro_batch or training.global_batch // parallel.count
    mine = micro_batches(range(len(batch)), size, parallel.rank, parallel.count)
    total = torch.zeros((), device=parallel.device)
    optimizer.zero_grad()
    for number, (index, chosen) in enumerate(mine):
        features = [batch[i] for i in chosen]
        inputs = family.collate(features).to(parallel.device)
        share = sum(family.loss_terms(f) for f in features) / units
        inputs = stack.on_batch(
            inputs.replace(loss_weight=share, loss_denominator=units, num_old_classes=family.num_old_classes)
        )
        _seed_dropout(learner.sequence.seed, *place, index)
        last = number == len(mine) - 1
        with parallel.accumulate(module, is_last=last):
            summed, logits = learner.forward(module, inputs)
            loss = stack.after_forward(family.module, inputs, logits, summed / units)
            total += loss.detach()
            parallel.backward(loss)
    loss_value = parallel.sum(total).item()
    _check_finite(loss_value, "loss", learner, place)
    stack.before_optimizer_step(family.module)
    parameters = [p for p in family.module.parameters() if p.requires_grad]
    norm = parallel.clip_gradients(parameters, training.clip)
    _check_finite(norm, "gradient's norm", learner, place)
    optimizer.step()
    stack.after_optimizer_step(family.module)
    return loss_value, round(norm, 6)


def _check_finite(value: float, what: str, learner: Learner, place: tuple[int, int]) -> None:
    if not math.isfinite(value):
        where = learner.sequence.method.run_kind.turn(learner.sequence.tasks[place[0]])
        raise NonFiniteLoss(f"the {what} is {value} in {where}, step {place[1]}")


def _seed_dropout(seed: int, task_id: int, step: int, index: int) -> None:
    """Dropout is drawn from the place of the micro-batch, not from what this process drew before."""
    torch.manual_seed((((seed * 1009 + task_id) * 1_000_003 + step) * 10_007 + index) % 2**63)
