"""Refresh learning: unlearn each batch a little, then learn it (arXiv 2403.13249)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, generator, trainable
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.example_gradients import mean_over_examples
from methods.shared.exchange import as_one
from methods.shared.passes import evaluating
from methods.shared.snapshots import fitted

# of the released code, as are the defaults
NOISE = 1e-3
DAMPING = 1e-3
EPSILON = 1e-20


class RefreshSettings(Settings):
    """Defaults as in the released code."""

    delta: float = Field(1e-5, ge=0, allow_inf_nan=False, description="size of the unlearning step")
    tau: float = Field(1e-5, ge=0, le=1, description="how much of the old Fisher stays")
    samples: int | None = Field(256, ge=0, description="examples for the Fisher; null: all; 0: no Fisher")


def unlearning(weight: Tensor, gradient: Tensor, noise: Tensor, fisher: Tensor | float) -> Tensor:
    """(g ||w|| / ||g|| + 0.001 noise) / (1 + 0.001 F): the direction in which the loss rises, as long as the weight."""
    ascent = weight.norm() / (gradient.norm() + EPSILON) * gradient
    return (ascent + NOISE * noise) / (1 + DAMPING * fisher)


class Refresh(Cost, CacheFields, Method):
    """Before every step's forward pass: theta += delta * (u + 0.001 N(0, 1)) / (1 + 0.001 F), per tensor, with
    u = g ||theta|| / ||g|| and g the gradient of the task's loss on the step's batch; then the usual step, on the same batch,
    from the weights that have unlearnt it.

    That is the released code's form, with one step of unlearning (J = 1), of the paper's
    theta += gamma F^-1 grad L + N(0, 2 gamma F^-1): the length of u stands for gamma. F is the Fisher of earlier
    tasks, each example weighted by the probability of its answer: F <- tau F + F_t. We depart from the code in that the pass
    for g has no dropout, and in that output units without a gradient (words that are not in the batch, labels still to come)
    neither move nor count in the norms, and vectors get no noise: a head that is longer changes nothing.
    Units that another plug-in masks are moved too. All workers draw the same noise.
    """

    Settings = RefreshSettings
    card = Card(
        summary="unlearn each batch a little before it is learnt",
        paper="2403.13249",
        needs=("boundaries",),
        memory="1 copy of the trained weights, and a forward and backward pass more",
        space={"delta": [1e-6, 1e-5, 1e-4]},
        strength_zero={"delta": 0.0},
        strong={"delta": 1e-3},
        not_sharded="it draws noise for the units that have a gradient, in the order of the whole weight",
    )

    def __init__(self, settings: RefreshSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.fisher: dict[str, Tensor] = {}
        self.task_id = 0
        self.step = 0

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # in the first task there is no old Fisher that tau could fade
        if task_id == 0:
            return self.settings.model_dump(exclude={"tau"})
        return self.settings.model_dump()

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        return ExtraPasses(training=1.0)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.fisher = fitted(self.fisher, trainable(model))
        self.task_id = task_id
        self.step = 0

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        parameters = trainable(model)
        gradients = self._gradients(model, parameters, batches)
        self.step += 1
        with torch.no_grad():
            for name, p in parameters.items():
                self._move(name, p, gradients[name])

    def _gradients(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        """The gradients of the task's loss on the whole step's batch; their length does not matter."""
        sums = [torch.zeros_like(p) for p in parameters.values()]
        with evaluating(model):
            for batch in batches:
                loss = self.context.forward(model, batch)[0] / batch.loss_denominator
                found = self.context.gradients(loss, list(parameters.values()))
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient
        return dict(zip(parameters, as_one(sums, self.context.mean_over_workers), strict=True))

    def _move(self, name: str, parameter: nn.Parameter, gradient: Tensor) -> None:
        delta = self.settings.delta
        fisher = self.fisher.get(name, torch.zeros_like(parameter))
        if parameter.ndim < 2:
            no_noise = torch.zeros_like(parameter)
            parameter.add_(delta * unlearning(parameter, gradient, no_noise, fisher))
            return
        live = gradient.flatten(1).ne(0).any(dim=1)
        weight = parameter[live]
        # on the weight's device, where drawing is fast; all workers draw the same
        rng = torch.Generator(weight.device)
        rng.manual_seed(generator(self.context.seed, "refresh", self.task_id, self.step, name).initial_seed())
        noise = torch.randn(weight.shape, generator=rng, device=weight.device, dtype=weight.dtype)
        parameter[live] = weight + delta * unlearning(weight, gradient[live], noise, fisher[live])

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        if self.settings.samples == 0:
            return
        new = weighted_fisher(self.context, model, batches, self.settings.samples)
        for name, fisher in new.items():
            if name in self.fisher:
                new[name] = self.settings.tau * self.fisher[name] + fisher
        self.fisher = new

    def state_dict(self) -> State:
        return dict(self.fisher)

    def load_state_dict(self, state: State) -> None:
        self.fisher = dict(state)


def weighted_fisher(
    context: Context, model: nn.Module, batches: Iterable[Batch], samples: int | None
) -> dict[str, Tensor]:
    """The mean over examples of p(answer | input) * (d log p / d theta_i)^2."""
    return mean_over_examples(
        context,
        model,
        batches,
        samples,
        lambda example: context.forward(model, example)[0],
        lambda g, loss: torch.exp(-loss) * g**2,
    )
