"""A task amid its steps: all that the next step depends on, as a state that can be stored and gone on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from methods import trainable
from methods.seam.amid_task import AmidTask
from methods.shared.shards import is_sharded
from orchestrator.store.checkpoints import ResumeState, State
from orchestrator.training.cost import StepCost
from orchestrator.training.in_task.log import TaskLog
from orchestrator.training.learner import Learner
from orchestrator.training.optimizer import load_optimizer_state
from orchestrator.training.schedules import skip_steps

# Raised when what is kept changes: a state of another format is not gone on from
FORMAT = 1


@dataclass
class RunningTask:
    """A task that is trained. To be made right before its first step here.

    Which examples come next, and the random numbers of a step, are functions of (seed, task, step), so that the number of
    steps stands for both. What `before_task` made is made anew by whoever goes on. Beside it are kept: the weights that
    train or were written to, the optimizer's state, what the method holds (`AmidTask`), the log, and, where the task is
    annealed by now, the state from before that.
    """

    learner: Learner
    # the model as it is called: wrapped, where several workers share the steps
    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    cost: StepCost
    log: TaskLog
    steps_done: int = 0
    before_annealing: ResumeState | None = None

    def __post_init__(self) -> None:
        model = self.learner.family.module
        self.method = AmidTask(self.learner.stack.parts, model)
        self.versions: dict[str, int] = {}
        for name, tensor in self._model_tensors():
            self.versions[name] = tensor._version

    def _model_tensors(self) -> Iterator[tuple[str, Tensor]]:
        model = self.learner.family.module
        yield from model.named_parameters()
        yield from model.named_buffers()

    def method_state(self) -> dict[str, Any]:
        """What the method holds that its steps may have changed; the tensors are its own."""
        return self.method.read()

    def state(self, method_state: Mapping[str, Any]) -> State:
        """All that the next step depends on; whole on the worker that writes. To be called on every worker."""
        full_state = self.learner.parallel.full_state
        model = self.learner.family.module
        weights: dict[str, Tensor] = dict(trainable(model))
        for name, tensor in self._model_tensors():
            # frozen ones are as they are found in the next process, unless a step of the method's wrote to them
            if tensor._version != self.versions[name]:
                weights[name] = tensor
        optimizer_state: dict[str, Mapping[str, Tensor]] = {}
        for name, parameter in trainable(model).items():
            if self.optimizer.state.get(parameter):
                optimizer_state[name] = self.optimizer.state[parameter]
        before = self.before_annealing
        if before is not None:
            before = ResumeState(full_state(before.weights), full_state(before.optimizer_state))
        history = self.log.history({}) | {"format": FORMAT, "steps_done": self.steps_done}
        held = {"parts": full_state(method_state), "optimizer": full_state(optimizer_state)}
        return State(full_state(weights), held, history, before)

    @torch.no_grad()
    def go_on_from(self, state: State) -> None:
        """Be where another process was. To be called before the first step, on every worker."""
        tensors = dict(self._model_tensors())
        for name, values in state.weights.items():
            self._write(tensors[name], values)
        load_optimizer_state(self.optimizer, self.learner.family.module, state.method["optimizer"])
        self.method.put_back(state.method["parts"], self._write)
        self.steps_done = state.history["steps_done"]
        skip_steps(self.schedule, self.steps_done)
        self.before_annealing = state.resume_state
        self.log.go_on_from(state.history)

    def _write(self, tensor: Tensor, values: Tensor) -> None:
        if is_sharded(tensor):
            self.learner.parallel.write_rows(tensor, values)  # type: ignore[arg-type]  # of a parameter it asks no more
        else:
            tensor.copy_(values)
