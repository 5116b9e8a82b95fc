"""One optimizer step, from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from methods import Batch, trainable
from orchestrator.errors import NonFiniteLoss
from orchestrator.models.family import Feature
from orchestrator.training.learner import Learner


def train_step(
    learner: Learner,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    global_batch: Sequence[Feature],
    task_position: int,
    step: int,
) -> tuple[float, float]:
    """One optimizer step on a global batch, of which this worker computes its part. Returns (loss, gradient norm).

    The loss is the sum over the global batch divided by its label tokens (generation) or examples (classification).
    """
    model = learner.family.module
    stack = learner.stack
    parallel = learner.parallel
    loss_denominator = learner.loss_denominator(global_batch)
    indices, batches = _my_batches(learner, global_batch, loss_denominator)
    loss = torch.zeros((), device=parallel.device)

    stack.before_step(model, batches)
    optimizer.zero_grad()
    for number, (micro_batch_index, made) in enumerate(zip(indices, batches, strict=True), start=1):
        batch = stack.on_batch(made)
        _seed_dropout(learner.sequence.seed, task_position, step, micro_batch_index)
        with parallel.accumulate(module, is_last=number == len(batches)):
            summed_loss, logits = learner.forward(module, batch)
            loss_part = stack.after_forward(model, batch, logits, summed_loss / loss_denominator)
            parallel.backward(loss_part)
        loss += loss_part.detach()
    global_loss = parallel.sum(loss).item()
    _check_finite(global_loss, "loss", learner, task_position, step)

    # Hooks see gradients that are averaged over the workers and not yet clipped
    parallel.exchange_gradients(model)
    stack.add_gradients(model)
    stack.before_optimizer_step(model)
    norm = parallel.clip_gradients(trainable(model).values(), learner.sequence.training.clip)
    # Before the step: an update by a gradient that is not finite would spoil every weight
    _check_finite(norm, "gradient's norm", learner, task_position, step)
    optimizer.step()
    stack.after_optimizer_step(model)
    return global_loss, round(norm, 6)


def _my_batches(
    learner: Learner, global_batch: Sequence[Feature], loss_denominator: int
) -> tuple[list[int], list[Batch]]:
    """This worker's micro-batches of a step, and their numbers among those of all workers."""
    indices = []
    batches = []
    for micro_batch_index, features in learner.my_micro_batches(global_batch):
        indices.append(micro_batch_index)
        batches.append(learner.make_batch(features, loss_denominator))
    return indices, batches


def _seed_dropout(seed: int, task_position: int, step: int, micro_batch_index: int) -> None:
    """Dropout is drawn from where the micro-batch stands in the sequence, not from what this process drew before."""
    # The modulus is all that `manual_seed` takes; other primes would change the result of every run with dropout
    torch.manual_seed((((seed * 1009 + task_position) * 1_000_003 + step) * 10_007 + micro_batch_index) % 2**63)


def _check_finite(value: float, quantity: str, learner: Learner, task_position: int, step: int) -> None:
    if math.isfinite(value):
        return
    turn = learner.sequence.method.run_kind.turn(learner.sequence.tasks[task_position])
    raise NonFiniteLoss(f"the {quantity} is {value} in {turn}, step {step}")
