"""One optimizer step, from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from methods import Batch, trainable
from orchestrator.errors import NonFiniteLoss
from orchestrator.models.family import Feature
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel


@dataclass(frozen=True)
class MicroBatches:
    """This worker's part of a global batch: its micro-batches, and their numbers among those of all workers.

    The loss is divided by the global batch's label tokens (generation) or examples (classification).
    """

    batches: Sequence[Batch]
    indices: Sequence[int]
    loss_denominator: int


class StepResult(NamedTuple):
    """The loss and gradient norm of a step, and the sums over workers of what each of them wished."""

    loss: float
    grad_norm: float
    wishes: Sequence[float]


def make_micro_batches(learner: Learner, global_batch: Sequence[Feature]) -> MicroBatches:
    """This worker's part of a global batch, on its device."""
    loss_denominator = learner.loss_denominator(global_batch)
    batches = []
    indices = []
    for micro_batch_index, features in learner.my_micro_batches(global_batch):
        batches.append(learner.make_batch(features, loss_denominator))
        indices.append(micro_batch_index)
    return MicroBatches(batches, indices, loss_denominator)


def train_step(
    learner: Learner,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    made: MicroBatches,
    task_position: int,
    step: int,
    wishes: Sequence[float] = (),
) -> StepResult:
    """One optimizer step on a global batch, of which this worker computes its part.

    `wishes` are numbers of this worker's that all of them are to know the sum of.
    """
    model = learner.family.module
    stack = learner.stack
    parallel = learner.parallel
    loss = torch.zeros((), device=parallel.device)

    stack.before_step(model, made.batches)
    optimizer.zero_grad()
    for micro_batch_index, micro_batch in zip(made.indices, made.batches, strict=True):
        batch = stack.on_batch(micro_batch)
        _seed_dropout(parallel.device, learner.sequence.seed, task_position, step, micro_batch_index)
        with parallel.accumulate(module, is_last=micro_batch is made.batches[-1]):
            summed_loss, logits = learner.forward(module, batch)
            loss_part = stack.after_forward(model, batch, logits, summed_loss / made.loss_denominator)
            parallel.backward(loss_part)
        loss += loss_part.detach()

    # Hooks see gradients that are averaged over the workers and not yet clipped
    parallel.exchange_gradients(model)
    stack.add_gradients(model)
    stack.before_optimizer_step(model)
    norm = parallel.clip_gradients(trainable(model).values(), learner.sequence.training.clip)
    result = _global_result(parallel, loss, norm, wishes)
    # Before the step: an update by a gradient that is not finite would spoil every weight
    _check_finite(result.loss, "loss", learner, task_position, step)
    _check_finite(result.grad_norm, "gradient's norm", learner, task_position, step)
    optimizer.step()
    stack.after_optimizer_step(model)
    return result


def _global_result(parallel: Parallel, loss: Tensor, norm: Tensor, wishes: Sequence[float]) -> StepResult:
    """What all workers know of a step, given this worker's part of the loss, the norm and its wishes."""
    numbers = loss.double().reshape(1)
    if parallel.count > 1:
        # in one exchange with the loss, as each takes its time
        own_wishes = torch.tensor(wishes, dtype=torch.float64).to(loss.device)
        numbers = parallel.sum(torch.cat([numbers, own_wishes]))
    # at once: each value that is read makes the CPU wait for the device
    norm_value, global_loss, *summed_wishes = torch.cat([norm.double().reshape(1), numbers]).tolist()
    return StepResult(global_loss, round(norm_value, 6), summed_wishes or wishes)


def _seed_dropout(device: torch.device, seed: int, task_position: int, step: int, micro_batch_index: int) -> None:
    """Dropout is drawn from where the micro-batch stands in the sequence, not from what this process drew before."""
    # The modulus is all that `manual_seed` takes; other primes would change the result of every run with dropout
    seed_generators(device, (((seed * 1009 + task_position) * 1_000_003 + step) * 10_007 + micro_batch_index) % 2**63)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed what draws on the CPU and on this worker's device. In every step: `torch.manual_seed` takes a hundred times as long,
    as it notes the stack for each kind of device that is not in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _check_finite(value: float, quantity: str, learner: Learner, task_position: int, step: int) -> None:
    if math.isfinite(value):
        return
    turn = learner.sequence.method.run_kind.turn(learner.sequence.tasks[task_position])
    raise NonFiniteLoss(f"the {quantity} is {value} in {turn}, step {step}")
