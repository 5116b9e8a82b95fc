"""Copies of parameters as they were, writing them back, the distance to them and the pull towards them.

All of it works on sharded parameters too: copies of those are sharded as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from methods.shared.shards import is_sharded, local, part_of, total


def copies(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The present values."""
    return {name: p.detach().clone() for name, p in parameters.items()}


def fitted(saved: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Saved tensors on the parameters' device and with as many output units; what is missing is zero.

    A head's output units are the labels of the stream, and a checkpoint may come from a shorter or longer one. Units that
    only one of them has belong to labels that no task so far has trained.
    """
    found = {}
    for name, parameter in parameters.items():
        if name in saved:
            found[name] = _fit(saved[name], parameter)
    return found


def _fit(saved: Tensor, like: Tensor) -> Tensor:
    if saved.shape == like.shape:
        return part_of(saved, like)
    saved = saved.to(like.device)
    num_common = min(len(saved), len(like))
    fitting = torch.zeros_like(like, requires_grad=False)
    fitting[:num_common] = saved[:num_common]
    return fitting


def with_new_units(saved: Tensor, present: Tensor) -> Tensor:
    """A saved weight on the present one's device, with as many output units; those that it lacks are the present ones.

    So it is with weights, of which zero is no sensible value for a unit that no task has trained.
    """
    if saved.shape == present.shape:
        return part_of(saved, present)
    saved = saved.to(present.device)
    return torch.cat([saved[: len(present)], present.detach()[len(saved) :]])


@torch.no_grad()
def put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write values into parameters."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


@contextlib.contextmanager
def with_weights(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[Callable[..., Any]]:
    """The model as it is with other values for some of its parameters: to be called by keyword, without gradients.

    No second module is made: what is not among the values is shared.
    """
    parameters = dict(model.named_parameters())
    if not any(is_sharded(parameters[name]) for name in values):
        yield lambda **inputs: functional_call(model, dict(values), kwargs=inputs)
        return
    # what a sharded model computes with it gathers from the parts, so the values have to lie there
    own = copies({name: parameters[name] for name in values})
    _write_parts(parameters, values)
    try:
        yield model
    finally:
        _write_parts(parameters, own)


@torch.no_grad()
def _write_parts(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        local(parameters[name]).copy_(local(value))


@torch.no_grad()
def squared_distance(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None
) -> Tensor:
    """sum_i w_i (theta_i - anchor_i)^2 over the first rows of each parameter, those that the anchor has; w is 1 without
    importance. Without its gradient, which `add_pull` adds.
    """
    terms = []
    for name, target in anchor.items():
        squares = (_first_rows(parameters[name], target) - target) ** 2
        if importance is not None:
            squares = importance[name] * squares
        terms.append(squares)
    return total(terms)


@torch.no_grad()
def add_pull(
    parameters: Mapping[str, Tensor],
    anchor: Mapping[str, Tensor],
    factor: float,
    importance: Mapping[str, Tensor] | None = None,
) -> None:
    """grad += factor w (theta - anchor): the gradient of factor / 2 times the squared distance."""
    for name, target in anchor.items():
        parameter = parameters[name]
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        pull = factor * (_first_rows(parameter, target) - target)
        if importance is not None:
            pull *= importance[name]
        _first_rows(parameter.grad, target).add_(pull)


def _first_rows(tensor: Tensor, like: Tensor) -> Tensor:
    """As many rows as another tensor has; a view."""
    if len(tensor) == len(like):
        return tensor
    return tensor[: len(like)]
