"""Training one task: global batches, accumulation, the method's hooks, AdamW."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from methods import Batch, generator
from orchestrator.models.family import Feature
from orchestrator.store.events import Report, Step
from orchestrator.training.cost import flops_model, task_steps, tokens
from orchestrator.training.learner import Learner
from orchestrator.training.optimizer import load_optimizer_state, make_optimizer
from orchestrator.training.resume_state import restore, snapshot
from orchestrator.training.schedules import make_schedule, phases
from orchestrator.training.step import train_step

# The history of a task in which no step is made
NO_STEPS: dict[str, Any] = {"seconds": 0.0, "steps": [], "usage": {"steps": 0, "tokens": 0, "flops": 0}}


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
    learner.row = learner.decayed = None
    if not stack.tuning.trains_by_gradient:
        stack.after_task(family.module, place, _TaskBatches(learner, features, place))
        learner.row = task_id + 1
        return NO_STEPS | {
            "seconds": round(time.monotonic() - started, 3),
            "diagnostics": stack.collect_diagnostics(place),
        }
    family.module.train()
    stack.grow(family.module, place + 1)
    count, cost = task_steps(learner, task_id), flops_model(learner, task_id)
    stack.before_task(family.module, place, _TaskBatches(learner, features, place))
    module = learner.parallel.prepare(family.module)
    optimizer = make_optimizer(family.module, family.head(), training)
    load_optimizer_state(optimizer, family.module, learner.optimizer_state)
    learner.optimizer_state = {}
    horizon = sequence.method.run_kind.schedule_horizon(len(sequence.tasks))
    schedule = make_schedule(optimizer, training, count, place, horizon)
    last_before = phases(training, count).constant if training.schedule == "infinite" else None
    steps, usage, resume_state = [], Counter(steps=0, tokens=0, flops=0), None
    for step, batch in enumerate(itertools.islice(learner.global_batches(task_id), count), start=1):
        began, lr = time.monotonic(), schedule.get_last_lr()[0]
        loss, norm = train_step(learner, module, optimizer, batch, (place, step))
        schedule.step()
        read = tokens(batch)
        usage.update(steps=1, tokens=read, flops=cost.flops(batch))
        rate = round(read / (time.monotonic() - began), 1)
        event = Step(task_id=task_id, step=step, loss=loss, lr=lr, grad_norm=norm, tokens_per_s=rate)
        steps.append(event.to_json())
        report(event)
        if step == last_before:
            resume_state = snapshot(learner, optimizer)
    if resume_state:
        restore(learner, resume_state)
    stack.after_task(family.module, place, _TaskBatches(learner, features, place))
    if learner.decayed:  # without what the method had in the model for the task alone
        learner.decayed = {name: learner.decayed[name] for name in learner.weights()}
    learner.row = None if resume_state else task_id + 1
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "steps": steps, "usage": dict(usage), "diagnostics": stack.collect_diagnostics(place)}


class _TaskBatches:
    """This worker's micro-batches of a task, on its device, for methods that look at a task's data before or after it.

    In an order of their own, the same for every number of workers: the first n are a random choice of n.
    """

    def __init__(self, learner: Learner, features: Sequence[Feature], task_id: int) -> None:
        self.learner, self.features, self.task_id = learner, features, task_id

    def __iter__(self) -> Iterator[Batch]:
        rng = generator(self.learner.sequence.seed, "looking", self.task_id)
        yield from self.learner.batches(self.features, rng)
