"""Training one task: global batches, accumulation, the method's hooks, AdamW."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from methods import Batch, generator, trainable
from orchestrator.annealing import fork, put_moments, return_to
from orchestrator.batches import micro_batches
from orchestrator.compute import price, task_steps, tokens
from orchestrator.config import TrainingConfig
from orchestrator.errors import NonFiniteLoss
from orchestrator.families import Feature
from orchestrator.journal import Report
from orchestrator.learner import Learner, to_device
from orchestrator.schedules import make_schedule, phases

# The history of a task in which no step is made
NO_STEPS: dict[str, Any] = {"seconds": 0.0, "steps": [], "spent": {"steps": 0, "tokens": 0, "flops": 0}}


def train_task(learner: Learner, task_id: int, report: Report) -> dict[str, Any]:
    """Train one task from the state that `learner` holds; returns the history (see checkpoint.State).

    With `schedule: infinite` the learner then holds the state from before annealing, and the annealed weights beside it; all
    that a method does after the task, such as taking an anchor, it does with the former, which the next task starts from.
    (What it gathers in its steps, as CoSO's sketch does, it gathers while annealing too.)

    Raises NonFiniteLoss, before the step that it would have spoilt.
    """
    sequence, family, stack = learner.sequence, learner.family, learner.stack
    started, training = time.monotonic(), learner.sequence.training
    features, place = learner.training_set(task_id), learner.place(task_id)
    family.at_task(*(len(learner.stream.labels_until(t)) for t in (place, task_id + 1)))
    learner.row = learner.annealed = None
    if not stack.tuning.optimizes:
        stack.after_task(family.module, place, _TaskBatches(learner, features, place))
        learner.row = task_id + 1
        return NO_STEPS | {"seconds": round(time.monotonic() - started, 3), "diagnostics": stack.numbers(place)}
    family.module.train()
    stack.grow(family.module, place + 1)
    count, cost = task_steps(learner, task_id), price(learner, task_id)
    stack.before_task(family.module, place, _TaskBatches(learner, features, place))
    module = learner.workers.wrap(family.module)
    optimizer = make_optimizer(family.module, family.head(), training)
    put_moments(optimizer, family.module, learner.moments)
    learner.moments = {}
    schedule = make_schedule(optimizer, training, count, place, len(sequence.tasks))
    last_before = phases(training, count).constant if training.schedule == "infinite" else None
    steps, spent, trunk = [], Counter(steps=0, tokens=0, flops=0), None
    for step, batch in enumerate(itertools.islice(learner.global_batches(task_id), count), start=1):
        began, lr = time.monotonic(), schedule.get_last_lr()[0]
        loss, norm = train_step(learner, module, optimizer, batch, (place, step))
        schedule.step()
        read = tokens(batch)
        spent.update(steps=1, tokens=read, flops=cost.flops(batch))
        rate = round(read / (time.monotonic() - began), 1)
        values = {"loss": loss, "lr": lr, "grad_norm": norm, "tokens_per_s": rate, "time": int(time.time() * 1000)}
        steps.append({"event": "step", "task_id": task_id, "step": step, **values})
        report(steps[-1])
        if step == last_before:
            trunk = fork(learner, optimizer)
    if trunk:
        return_to(learner, trunk)
    stack.after_task(family.module, place, _TaskBatches(learner, features, place))
    if learner.annealed:  # without what the method had in the model for the task alone
        learner.annealed = {name: learner.annealed[name] for name in learner.weights()}
    learner.row = None if trunk else task_id + 1
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "steps": steps, "spent": dict(spent), "diagnostics": stack.numbers(place)}


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
    family, stack, workers, training = learner.family, learner.stack, learner.workers, learner.sequence.training
    units = sum(family.units(f) for f in batch)
    size = training.micro_batch or training.global_batch // workers.count
    mine = micro_batches(range(len(batch)), size, workers.rank, workers.count)
    total = torch.zeros((), device=workers.device)
    optimizer.zero_grad()
    for number, (index, chosen) in enumerate(mine):
        features = [batch[i] for i in chosen]
        inputs = to_device(family.collate(features), workers.device)
        share = sum(family.units(f) for f in features) / units
        inputs = stack.on_batch({**inputs, "share": share, "units": units, "old_columns": family.old_columns})
        _seed_dropout(learner.sequence.seed, *place, index)
        last = number == len(mine) - 1
        with contextlib.nullcontext() if last or workers.count == 1 else module.no_sync():  # type: ignore[operator]
            summed, logits = learner.forward(module, inputs)
            loss = stack.after_forward(family.module, inputs, logits, summed / units)
            total += loss.detach()
            (
                loss * workers.count
            ).backward()  # DistributedDataParallel averages; the loss is already a share of the whole
    loss_value = workers.sum(total).item()
    _check_finite(loss_value, "loss", learner, place)
    stack.before_optimizer_step(family.module)
    parameters = [p for p in family.module.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(parameters, training.clip if training.clip is not None else math.inf).item()
    _check_finite(norm, "gradient's norm", learner, place)
    optimizer.step()
    stack.after_optimizer_step(family.module)
    return loss_value, round(norm, 6)


def _check_finite(value: float, what: str, learner: Learner, place: tuple[int, int]) -> None:
    if not math.isfinite(value):
        joint = learner.sequence.method.bound == "joint"
        where = "joint training" if joint else f"task {learner.sequence.tasks[place[0]]!r}"
        raise NonFiniteLoss(f"the {what} is {value} in {where}, step {place[1]}")


def _seed_dropout(seed: int, task_id: int, step: int, index: int) -> None:
    """Dropout is drawn from the place of the micro-batch, not from what this process drew before."""
    torch.manual_seed((((seed * 1009 + task_id) * 1_000_003 + step) * 10_007 + index) % 2**63)


def make_optimizer(module: nn.Module, head: Sequence[nn.Parameter], training: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW. No weight decay on biases, norms and the task head (whose untrained rows must stay as they are).

    A parameter takes the first rate of `training.lrs` whose pattern it matches, else `training.lr`. Raises ValueError for a
    pattern that matches nothing.
    """
    heads = {id(p) for p in head}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    unused = set(training.lrs)
    for name, parameter in trainable(module).items():
        is_head = id(parameter) in heads
        found = next((p for p in training.lrs if (is_head and p == "head") or fnmatch(name, p)), None)
        unused.discard(str(found))
        groups[training.lrs[found] if found else training.lr, parameter.ndim > 1 and not is_head].append(parameter)
    if unused:
        raise ValueError(f"training.lrs: {sorted(unused)[0]!r} matches no parameter that trains")
    decayed_first = sorted(groups.items(), key=lambda group: not group[0][1])
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, **({} if decays else {"weight_decay": 0.0})}
            for (lr, decays), parameters in decayed_first
        ],
        lr=training.lr,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


class _TaskBatches:
    """This worker's micro-batches of a task, on its device, for methods that look at a task's data before or after it.

    In an order of their own, the same for every number of workers: the first n are a random choice of n.
    """

    def __init__(self, learner: Learner, features: Sequence[Feature], task_id: int) -> None:
        self.learner, self.features, self.task_id = learner, features, task_id

    def __iter__(self) -> Iterator[Batch]:
        rng = generator(self.learner.sequence.seed, "looking", self.task_id)
        yield from self.learner.batches(self.features, rng)
