"""Training one task: global batches, accumulation, the method's hooks, AdamW."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from methods import Batch, generator
from orchestrator.models.family import Feature
from orchestrator.store.checkpoints import ResumeState, State
from orchestrator.store.events import Step
from orchestrator.store.records.event import Report
from orchestrator.training.cost import step_cost, task_steps
from orchestrator.training.in_task.checkpoints import NO_WISHES, TaskCheckpoints
from orchestrator.training.in_task.log import TaskLog, no_look
from orchestrator.training.in_task.running_task import RunningTask
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


def train_task(
    learner: Learner,
    task_id: int,
    report: Report,
    where: Position | None = None,
    look: Callable[[int], None] = no_look,
    inside: TaskCheckpoints | None = None,
) -> State:
    """Train one task from the state that `learner` holds; returns the state to store, whose tensors may be the model's own.

    With `schedule: infinite` the result has two states: the annealed weights, which are scored, and the resume state from
    before annealing, which the learner then holds. All that a method does after the task, such as taking an anchor, it does
    with the latter, since the next task starts from there. (What it gathers in its steps, as CoSO's sketch does, it gathers
    while annealing too.) It has two states as well where a method scores other weights than it trains (`ScoredWeights`).
    Where a method stores the weights in a form of its own (`StoredForm`), the learner then holds what that form gives.
    `look` is called with the number of steps done, before the first and after each, on every worker; it must change nothing.
    With `inside` the task goes on where one of its states is found, and further ones are written.

    Raises NonFiniteLoss, before the step that it would have spoilt; Preempted, where a worker is asked to leave.
    """
    log = TaskLog(report, look)
    model = learner.family.module
    stack = learner.stack
    position = learner.task_position(task_id)
    batches = TaskBatches(learner, learner.training_set(task_id), position)
    num_old_labels = len(learner.stream.labels_until(position))
    learner.family.at_task(num_old_labels, len(learner.stream.labels_until(task_id + 1)))

    optimizer_state = learner.state.optimizer_state
    # Until the task is over the weights belong to no state: after an error, nobody may take them for one
    learner.hold(NOTHING_WHOLE)
    resume_state = None
    decayed: dict[str, Tensor] = {}
    if stack.tuning.trains_by_gradient:
        resume_state = _make_steps(learner, task_id, batches, log, where or Position(), optimizer_state, inside)
    if resume_state is not None:
        decayed = copy_to_cpu(learner.weights())
        restore(model, resume_state)
    with log.apart():
        stack.measure(model, position, batches)
    stack.after_task(model, position, batches)
    weights = learner.stored_weights()
    history = log.history(stack.collect_diagnostics(position))
    return _finish(learner, task_id, weights, history, resume_state, decayed)


def _make_steps(
    learner: Learner,
    task_id: int,
    batches: TaskBatches,
    log: TaskLog,
    where: Position,
    optimizer_state: OptimizerState,
    inside: TaskCheckpoints | None,
) -> ResumeState | None:
    """All steps of a task. Returns the state from before annealing, where there is annealing."""
    running = _begin(learner, task_id, batches, log, optimizer_state)
    if inside is not None:
        inside.resume(running)
    last_before_annealing = last_step_before_annealing(learner.sequence.training, learner.num_steps)
    if running.steps_done == 0:
        log.let_look(0)
    num_left = learner.num_steps - running.steps_done
    global_batches = itertools.islice(learner.global_batches(task_id, running.steps_done), num_left)
    for step, (global_batch, made) in enumerate(_made(learner, global_batches), start=running.steps_done + 1):
        where.step = step
        wishes = NO_WISHES if inside is None else inside.wishes(step)
        summed_wishes = _make_step(running, task_id, step, global_batch, made, wishes)
        log.let_look(step)
        if step == last_before_annealing:
            weights = learner.weights()
            running.before_annealing = snapshot(learner.family.module, weights, running.optimizer)
        if inside is not None:
            inside.after_step(running, summed_wishes)
    # they would take as much memory as the weights while the state is stored and scored
    running.optimizer.zero_grad()
    where.step = None
    return running.before_annealing


def _begin(
    learner: Learner, task_id: int, batches: TaskBatches, log: TaskLog, optimizer_state: OptimizerState
) -> RunningTask:
    """A task before its first step."""
    model = learner.family.module
    training = learner.sequence.training
    position = learner.task_position(task_id)
    tuning = learner.stack.tuning
    model.train()
    learner.stack.grow(model, position + 1)
    # Costs are those of the model in this structure, before the method changes anything in it for the task
    learner.num_steps = task_steps(learner, task_id)
    cost = step_cost(learner, task_id)
    learner.stack.before_task(model, position, batches)
    module = learner.parallel.prepare(model, learner.stack.exchanges(), position)
    optimizer = make_optimizer(
        model, learner.family.head(), training, tuning.without_decay(), tuning.rate_factors(model)
    )
    load_optimizer_state(optimizer, model, optimizer_state)
    horizon = learner.sequence.method.run_kind.schedule_horizon(len(learner.sequence.tasks))
    schedule = make_schedule(optimizer, training, learner.num_steps, position, horizon)
    return RunningTask(learner, module, optimizer, schedule, cost, log)


def _make_step(
    running: RunningTask,
    task_id: int,
    step: int,
    global_batch: Sequence[Feature],
    made: MicroBatches,
    wishes: Sequence[float],
) -> Sequence[float]:
    """Make and record one step. Returns the sums of what the workers wished."""
    began = time.monotonic()
    learner = running.learner
    lr = running.schedule.get_last_lr()[0]
    position = learner.task_position(task_id)
    result = train_step(learner, running.module, running.optimizer, made, position, step, wishes)
    running.schedule.step()
    running.steps_done = step
    num_tokens = running.cost.tokens(global_batch)
    rate = round(num_tokens / (time.monotonic() - began), 1)
    loss, norm = result.loss, result.grad_norm
    event = Step(task_id=task_id, step=step, loss=loss, lr=lr, grad_norm=norm, tokens_per_s=rate)
    running.log.add(event, num_tokens, running.cost.flops(global_batch))
    return result.wishes


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
