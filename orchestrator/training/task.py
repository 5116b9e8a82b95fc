"""Training one task: global batches, accumulation, the method's hooks, AdamW."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from methods import Batch, generator
from orchestrator.models.family import Feature
from orchestrator.store.checkpoints import ResumeState, State
from orchestrator.store.events import Step
from orchestrator.store.records.event import Report
from orchestrator.training.cost import step_cost, task_steps
from orchestrator.training.learner import Learner
from orchestrator.training.learner_state import BOTH, NOTHING_WHOLE, LearnerState, copy_to_cpu, restore, snapshot
from orchestrator.training.optimizer import OptimizerState, load_optimizer_state, make_optimizer
from orchestrator.training.schedules import last_step_before_annealing, make_schedule
from orchestrator.training.step import MicroBatches, make_micro_batches, train_step


@dataclass
class Position:
    """Where a sequence is, kept up to date for the record of a failure: which task is trained or scored, in which step."""

    task: str | None = None
    step: int | None = None


@dataclass
class TaskLog:
    """The steps of a task as they are recorded, and what they used."""

    report: Report
    steps: list[dict[str, Any]] = field(default_factory=list)
    num_tokens: int = 0
    num_flops: int = 0

    def add(self, step: Step, num_tokens: int, num_flops: int) -> None:
        """Record a step."""
        self.steps.append(step.to_json())
        self.num_tokens += num_tokens
        self.num_flops += num_flops
        self.report(step)

    def history(self, seconds: float, diagnostics: Mapping[str, Any]) -> dict[str, Any]:
        """The task's history as a checkpoint keeps it (see `checkpoints.State`)."""
        usage = {"steps": len(self.steps), "tokens": self.num_tokens, "flops": self.num_flops}
        return {"seconds": round(seconds, 3), "steps": self.steps, "usage": usage, "diagnostics": diagnostics}


def train_task(learner: Learner, task_id: int, report: Report, where: Position | None = None) -> State:
    """Train one task from the state that `learner` holds; returns the state to store, whose tensors may be the model's own.

    With `schedule: infinite` the result has two states: the annealed weights, which are scored, and the resume state from
    before annealing, which the learner then holds. All that a method does after the task, such as taking an anchor, it does
    with the latter, since the next task starts from there. (What it gathers in its steps, as CoSO's sketch does, it gathers
    while annealing too.) It has two states as well where a method scores other weights than it trains (`ScoredWeights`).
    Where a method stores the weights in a form of its own (`StoredForm`), the learner then holds what that form gives.

    Raises NonFiniteLoss, before the step that it would have spoilt.
    """
    started = time.monotonic()
    model = learner.family.module
    stack = learner.stack
    position = learner.task_position(task_id)
    batches = TaskBatches(learner, learner.training_set(task_id), position)
    num_old_labels = len(learner.stream.labels_until(position))
    learner.family.at_task(num_old_labels, len(learner.stream.labels_until(task_id + 1)))

    optimizer_state = learner.state.optimizer_state
    # Until the task is over the weights belong to no state: after an error, nobody may take them for one
    learner.hold(NOTHING_WHOLE)
    log = TaskLog(report)
    resume_state = None
    decayed: dict[str, Tensor] = {}
    if stack.tuning.trains_by_gradient:
        resume_state = _make_steps(learner, task_id, optimizer_state, batches, log, where or Position())
    if resume_state is not None:
        decayed = copy_to_cpu(learner.weights())
        restore(model, resume_state)
    seconds = time.monotonic() - started
    stack.measure(model, position, batches)
    started = time.monotonic()
    stack.after_task(model, position, batches)
    weights = learner.stored_weights()
    seconds += time.monotonic() - started
    history = log.history(seconds, stack.collect_diagnostics(position))
    return _finish(learner, task_id, weights, history, resume_state, decayed)


def _make_steps(
    learner: Learner, task_id: int, optimizer_state: OptimizerState, batches: TaskBatches, log: TaskLog, where: Position
) -> ResumeState | None:
    """All steps of a task. Returns the state from before annealing, where there is annealing."""
    model = learner.family.module
    training = learner.sequence.training
    position = learner.task_position(task_id)
    model.train()
    learner.stack.grow(model, position + 1)
    # Costs are those of the model in this structure, before the method changes anything in it for the task
    num_steps = task_steps(learner, task_id)
    cost = step_cost(learner, task_id)
    learner.num_steps = num_steps
    learner.stack.before_task(model, position, batches)
    module = learner.parallel.prepare(model, learner.stack.exchanges(), position)
    tuning = learner.stack.tuning
    optimizer = make_optimizer(
        model, learner.family.head(), training, tuning.without_decay(), tuning.rate_factors(model)
    )
    load_optimizer_state(optimizer, model, optimizer_state)
    horizon = learner.sequence.method.run_kind.schedule_horizon(len(learner.sequence.tasks))
    schedule = make_schedule(optimizer, training, num_steps, position, horizon)
    last_before_annealing = last_step_before_annealing(training, num_steps)

    resume_state = None
    global_batches = itertools.islice(learner.global_batches(task_id), num_steps)
    for step, (global_batch, made) in enumerate(_made(learner, global_batches), start=1):
        where.step = step
        began = time.monotonic()
        lr = schedule.get_last_lr()[0]
        loss, norm = train_step(learner, module, optimizer, made, position, step)
        schedule.step()
        num_tokens = cost.tokens(global_batch)
        num_flops = cost.flops(global_batch)
        rate = round(num_tokens / (time.monotonic() - began), 1)
        event = Step(task_id=task_id, step=step, loss=loss, lr=lr, grad_norm=norm, tokens_per_s=rate)
        log.add(event, num_tokens, num_flops)
        if step == last_before_annealing:
            resume_state = snapshot(model, learner.weights(), optimizer)
    # they would take as much memory as the weights while the state is stored and scored
    optimizer.zero_grad()
    where.step = None
    return resume_state


def _made(learner: Learner, global_batches: Iterable[list[Feature]]) -> Iterator[tuple[list[Feature], MicroBatches]]:
    """Each global batch with this worker's part of it. On a GPU the next one's is made while the GPU computes this one."""
    if learner.parallel.device.type == "cpu" or learner.stack.composes_batches:
        # there the same cores would compute both; and a method that composes batches may first have to see the step before
        for global_batch in global_batches:
            yield global_batch, make_micro_batches(learner, global_batch)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting: list[tuple[list[Feature], Future[MicroBatches]]] = []
        for global_batch in global_batches:
            waiting.append((global_batch, thread.submit(make_micro_batches, learner, global_batch)))
            if len(waiting) > 1:
                before, made = waiting.pop(0)
                yield before, made.result()
        for before, made in waiting:
            yield before, made.result()


def _finish(
    learner: Learner,
    task_id: int,
    weights: Mapping[str, Tensor],
    history: Mapping[str, Any],
    resume_state: ResumeState | None,
    decayed: Mapping[str, Tensor],
) -> State:
    """The trained state, to be stored; and the learner holds it."""
    full_state = learner.parallel.full_state
    method = full_state(learner.stack.state_dict())
    if resume_state is None and not learner.stack.scores_other_weights:
        learner.hold(LearnerState(task_id + 1, BOTH))
        return State(full_state(weights), method, history)
    trained = weights
    optimizer_state: OptimizerState = {}
    if resume_state is not None:
        # The decayed weights have more: what the method had in the model for the time of the task alone
        trained = {name: decayed[name] for name in weights}
        optimizer_state = resume_state.optimizer_state
    learner.hold(LearnerState(task_id + 1, frozenset({"train"}), optimizer_state))
    scored = learner.stack.scored(learner.family.module, trained)
    # What is scored may name frozen parameters too: loading the state to train from must put those back
    going_on = dict(weights)
    for name, parameter in learner.family.module.named_parameters():
        if name in scored:
            going_on.setdefault(name, parameter.detach())
    resume_state = ResumeState(full_state(going_on), full_state(optimizer_state))
    return State(full_state(scored), method, history, resume_state)


class TaskBatches:
    """This worker's micro-batches of a task, on its device, for methods that look at a task's data before or after it.

    In an order of their own, the same for every number of workers: the first n are a random choice of n.
    """

    def __init__(self, learner: Learner, features: Sequence[Feature], task_position: int) -> None:
        self.learner = learner
        self.features = features
        self.task_position = task_position

    def __iter__(self) -> Iterator[Batch]:
        # Each pass draws anew, so that two methods that look at the data see the same choice
        rng = generator(self.learner.sequence.seed, "looking", self.task_position)
        yield from self.learner.batches(self.features, rng)
