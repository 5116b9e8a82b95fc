"""What a search tries: each method's declared parameters, and how a choice of values makes a method.

A parameter is named by where it is set: `training.lr`, `training.lrs.head`, or `<part>.<setting>` such as `migu.ratio`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from methods import METHODS, TuningMethod, generator, unknown
from orchestrator.config.messages import explain
from orchestrator.config.method import MethodEntry
from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.config.training import TrainingConfig
from orchestrator.errors import UserError

Values = dict[str, Any]


Space = dict[str, Dimension]


_NOT_SEARCHED = ("lrs", "epochs_per_task", "budget", "infinite")


_TRAINING = [f"training.{key}" for key in TrainingConfig.model_fields if key not in _NOT_SEARCHED]


def parameters_of(method: MethodEntry) -> list[str]:
    """All that a search may vary for a method."""
    if not method.spec.trains_by_gradient:
        return []
    return _TRAINING + [f"{part.name}.{key}" for part in (method.tuning, *method.plugins) for key in part.settings]


def declared_space(method: MethodEntry) -> Space:
    """What the method's parts declare as worth trying."""
    if not method.spec.trains_by_gradient:
        return {}
    tuning = METHODS[method.tuning.name]
    assert issubclass(tuning, TuningMethod)
    found = {f"training.{key}": values for key, values in tuning.card.training_space.items()}
    for part in (method.tuning, *method.plugins):
        found |= {f"{part.name}.{key}": values for key, values in METHODS[part.name].card.space.items()}
    return {name: Dimension.model_validate(values) for name, values in found.items()}


def size_of(space: Space) -> float:
    """How many choices there are; infinite with a real range."""
    return math.prod(dimension.size for dimension in space.values())


def space_of(search: SearchConfig, method: MethodEntry) -> Space:
    """The declared space with the search's and the method's own changes. Raises UserError for a wrong name or value."""
    space = declared_space(method)
    space |= {name: dimension for name, dimension in search.space.items() if _has(method, name)}
    for name in method.space:
        if not _has(method, name):
            raise UserError(f"methods.{method.label}.space: " + unknown("parameter", name, parameters_of(method)))
    space |= method.space
    for name, dimension in space.items():
        for value in dimension.values or [_inside(dimension, share) for share in (0.0, 0.37, 1.0)]:
            try:
                with_values(method, {name: value})
            except ValidationError as error:
                raise UserError(
                    f"search.space.{name}: {value!r} is not allowed for {method.label}: {explain(error)}"
                ) from None
    return space


def check_names(search: SearchConfig) -> None:
    """Raises UserError for a parameter that no method of the registry has."""
    known = _TRAINING + [f"{part}.{key}" for part, method in METHODS.items() for key in method.Settings.model_fields]
    for name in search.space:
        if name not in known and not name.startswith("training.lrs."):
            raise UserError("search.space: " + unknown("parameter", name, known))


def _has(method: MethodEntry, name: str) -> bool:
    return name in parameters_of(method) or (name.startswith("training.lrs.") and method.spec.trains_by_gradient)


def with_values(method: MethodEntry, values: Mapping[str, Any]) -> MethodEntry:
    """The method with these values set, checked as if a user had written them. Raises ValueError."""
    dumped = method.model_dump()
    for name, value in values.items():
        part, _, key = name.partition(".")
        if part == "training" and key.startswith("lrs."):
            dumped["training"].setdefault("lrs", {})[key.removeprefix("lrs.")] = value
        elif part == "training":
            dumped["training"][key] = value
        else:
            owner = next(p for p in (dumped["tuning"], *dumped["plugins"]) if p["name"] == part)
            owner["settings"][key] = value
    return MethodEntry.model_validate(dumped | {"name": method.label, "space": {}})


def grid(space: Space) -> Iterator[Values]:
    """Every combination, the last parameter changing fastest. Ranges have none: see `check_grid`."""
    names = list(space)
    for values in itertools.product(*(space[name].values or () for name in names)):
        yield dict(zip(names, values, strict=True))


def check_grid(space: Space, method: str, trials: int) -> None:
    """Raises UserError for a range, of which there is no grid, and for a grid that the trials would cut off."""
    for name, dimension in space.items():
        if dimension.values is None:
            raise UserError(f"search.space.{name}: a grid needs listed values (method {method})")
    if size_of(space) > trials:
        raise UserError(
            f"search.trials: the grid of {method} has {size_of(space):g} points, but there are {trials} trials"
        )


def random_draws(space: Space, seed: int) -> Iterator[Values]:
    """Distinct random choices, without end for a space with a range.

    Listed values are drawn in shuffled rounds, so each comes up equally often; and a parameter's draws depend on the seed and
    its own name alone. So two methods try the same learning rates in the same order: their trials are paired, and what
    they train alike is trained once.
    """
    seen: set[tuple[Any, ...]] = set()
    for number in itertools.count():
        if len(seen) >= size_of(space):
            return
        values = {name: _draw(name, dimension, seed, number) for name, dimension in space.items()}
        if tuple(values.values()) not in seen:
            seen.add(tuple(values.values()))
            yield values


def _draw(name: str, dimension: Dimension, seed: int, number: int) -> Any:
    import torch

    if dimension.values is not None:
        turn, place = divmod(number, len(dimension.values))
        order = torch.randperm(len(dimension.values), generator=generator(seed, name, turn))
        return dimension.values[int(order[place])]
    return _inside(dimension, float(torch.rand((), generator=generator(seed, name, number), dtype=torch.float64)))


def _inside(dimension: Dimension, share: float) -> Any:
    """The value that lies at a share (0 to 1) of a range."""
    low, high = dimension.low, dimension.high
    assert low is not None and high is not None
    value = low * (high / low) ** share if dimension.log else low + (high - low) * share
    return round(value) if dimension.integer else float(f"{value:.6g}")
