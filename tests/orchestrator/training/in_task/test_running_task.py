"""A task amid its steps holds what the next step depends on, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from methods import Batch, Method
from orchestrator.store.checkpoints import State
from orchestrator.training.in_task.log import TaskLog
from orchestrator.training.in_task.running_task import RunningTask
from orchestrator.training.learner import Learner
from orchestrator.training.step import make_micro_batches, train_step
from orchestrator.training.task import TaskBatches, _begin


class WritesToTheFrozen(Method):
    """Moves a frozen weight and a buffer in each step, as no method of ours does."""

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        model.register_buffer("count", torch.zeros(1))

    @torch.no_grad()
    def after_optimizer_step(self, model: Any) -> None:
        model.count += 1
        model.frozen_one.add_(0.5)


def begun(learner: Learner) -> RunningTask:
    log = TaskLog(lambda event: None)
    batches = TaskBatches(learner, learner.training_set(0), 0)
    learner.family.at_task(0, len(learner.stream.labels_until(1)))
    return _begin(learner, 0, batches, log, {})


def make_steps(running: RunningTask, numbers: range) -> None:
    learner = running.learner
    batches = list(zip(numbers, learner.global_batches(0, numbers.start - 1), strict=False))
    for number, batch in batches:
        train_step(
            learner, running.module, running.optimizer, make_micro_batches(learner, batch), 0, number, (0.0, 0.0)
        )
        running.schedule.step()
        running.steps_done = number


@pytest.mark.parametrize("training", [{"schedule": "cosine", "warmup": 0.2}, {"schedule": "infinite"}])
def test_the_next_step_is_the_same(training: dict[str, Any], learner_of: Callable[..., Learner]) -> None:
    changes = {"stream": {"max_train": 64}, "methods": ["ft+migu"], "training": {"epochs": 2, **training}}
    one = begun(learner_of(**changes))
    make_steps(one, range(1, 6))
    kept = one.state(one.method_state())
    copy = State({name: weight.clone() for name, weight in kept.weights.items()}, kept.method, kept.history)
    other = begun(learner_of(**changes))
    other.go_on_from(copy)
    assert other.steps_done == 5
    assert other.schedule.get_last_lr() == one.schedule.get_last_lr()
    for running in (one, other):
        make_steps(running, range(6, 8))
    pairs = zip(one.learner.family.module.named_parameters(), other.learner.family.module.parameters(), strict=True)
    for (name, weight), same in pairs:
        assert torch.equal(weight, same), name
    assert other.schedule.get_last_lr() == one.schedule.get_last_lr()


def test_what_a_step_wrote_to_a_frozen_weight_is_kept(learner_of: Callable[..., Learner]) -> None:
    def made() -> RunningTask:
        learner = learner_of(methods=["lora"])
        model = learner.family.module
        model.register_parameter("frozen_one", nn.Parameter(torch.zeros(2), requires_grad=False))
        part = WritesToTheFrozen(None, learner.stack.tuning.context)
        learner.stack.parts.append(("writes", part))
        return begun(learner)

    one = made()
    before = one.state(one.method_state()).weights.keys()
    make_steps(one, range(1, 3))
    kept = one.state(one.method_state())
    assert kept.weights.keys() - before == {"frozen_one", "count"}
    assert all("lora_" in name for name in before)
    other = made()
    other.go_on_from(kept)
    model: Any = other.learner.family.module
    assert model.frozen_one.tolist() == [1.0, 1.0] and model.count.tolist() == [2.0]
