"""What a search tries: each method's declared parameters, and how a choice of values makes a method.

A parameter is named by where it is set: `training.lr`, `training.lrs.head`, or `<part>.<setting>` such as `migu.ratio`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError

from methods import generator, method_class, registered_methods, unknown
from orchestrator.config.messages import explain
from orchestrator.config.method import MethodEntry
from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.config.training import TrainingConfig
from orchestrator.errors import UserError

Values = dict[str, Any]
Space = dict[str, Dimension]

# Tables and whole sections: there is no single value to draw. The rate of one parameter group is `training.lrs.<group>`.
_NOT_SEARCHED = ("lrs", "epochs_per_task", "budget", "infinite")
_TRAINING = [f"training.{key}" for key in TrainingConfig.model_fields if key not in _NOT_SEARCHED]


def parameters_of(method: MethodEntry) -> list[str]:
    """The names of all that a search may vary for a method."""
    names = []
    if method.spec.trains_by_gradient:
        names.extend(_TRAINING)
    for part in (method.tuning, *method.plugins):
        for setting in part.settings:
            names.append(f"{part.name}.{setting}")
    return names


def declared_space(method: MethodEntry) -> Space:
    """What the method's parts declare as worth trying."""
    space: Space = {}
    # a method that makes no gradient steps has no rate to try, and may well have settings of its own
    if method.spec.trains_by_gradient:
        for key, values in method.spec.tuning_type.card.training_space.items():
            space[f"training.{key}"] = Dimension.model_validate(values)
    for part in (method.tuning, *method.plugins):
        for setting, values in part.type.card.space_of(part.settings).items():
            space[f"{part.name}.{setting}"] = Dimension.model_validate(values)
    return space


def size_of(space: Space) -> float:
    """The number of choices; infinite with a real range, and 1 for an empty space: there is one way to choose nothing."""
    size: float = 1
    for dimension in space.values():
        size *= dimension.size
    return size


def space_of(search: SearchConfig, method: MethodEntry) -> Space:
    """The declared space with the search's and the method's own changes. Raises UserError for a wrong name or value."""
    space = declared_space(method)
    for name, dimension in search.space.items():
        # A search's space is for all methods, so a name that this method lacks is another method's.
        if _has_parameter(method, name):
            space[name] = dimension
    for name, dimension in method.space.items():
        if not _has_parameter(method, name):
            raise UserError(f"methods.{method.label}.space: " + unknown("parameter", name, parameters_of(method)))
        space[name] = dimension
    for name, dimension in space.items():
        _check_scenario(method, name)
        _check_values(method, name, dimension)
    return space


def _check_scenario(method: MethodEntry, name: str) -> None:
    """Raises UserError for a parameter of the scenario, which is the same for all methods and in both phases."""
    if name == "training.epochs":
        raise UserError(
            f"search.space.{name}: methods would choose different numbers of steps; epochs are the scenario's: set "
            "training.epochs, or training.budget, for all"
        )
    for part in (method.tuning, *method.plugins):
        if name == f"{part.name}.{part.type.card.kept_share}":
            raise UserError(
                f"search.space.{name}: methods would choose memories of different size; it is the scenario's: set it in "
                f"`methods`, the same for all ({method.label})"
            )


def _check_values(method: MethodEntry, name: str, dimension: Dimension) -> None:
    """Raises UserError for a value that the method does not allow. Of a range: its ends and a point between them."""
    values: tuple[Any, ...]
    if dimension.values is not None:
        values = dimension.values
    else:
        # The inner point is no round number, so a setting that takes whole numbers refuses a range without `integer`.
        values = (dimension.value_at(0.0), dimension.value_at(0.37), dimension.value_at(1.0))
    for value in values:
        try:
            with_values(method, {name: value})
        except ValidationError as error:
            raise UserError(
                f"search.space.{name}: {value!r} is not allowed for {method.label}: {explain(error)}"
            ) from None


def check_names(search: SearchConfig) -> None:
    """Raises UserError for a parameter that no method of the registry has."""
    known = list(_TRAINING)
    parts = registered_methods()
    for name in search.space:
        part_name, _, _ = name.rpartition(".")
        # A part that goes by its dotted path is in no registry.
        if "." in part_name and not name.startswith("training."):
            try:
                parts[part_name] = method_class(part_name)
            except ValueError as error:
                raise UserError(f"search.space.{name}: {error}") from error
    for part, method in parts.items():
        for setting in method.Settings.model_fields:
            known.append(f"{part}.{setting}")
    for name in search.space:
        # Which groups of parameters there are depends on the model, so their names are checked when it is loaded.
        if name not in known and not name.startswith("training.lrs."):
            raise UserError("search.space: " + unknown("parameter", name, known))


def names_of_no_method(search: SearchConfig, methods: Sequence[MethodEntry]) -> list[str]:
    """The parameters of the search's space that none of its methods has: nothing of them is tried."""
    names = []
    for name in search.space:
        if not any(_has_parameter(method, name) for method in methods):
            names.append(name)
    return names


def _has_parameter(method: MethodEntry, name: str) -> bool:
    if name.startswith("training.lrs."):
        return method.spec.trains_by_gradient
    return name in parameters_of(method)


def with_values(method: MethodEntry, values: Mapping[str, Any]) -> MethodEntry:
    """The method with these values set, checked as if a user had written them. Raises ValueError."""
    fields = method.model_dump()
    for name, value in values.items():
        part_name, _, key = name.partition(".")
        if part_name == "training" and key.startswith("lrs."):
            rates = fields["training"].setdefault("lrs", {})
            rates[key.removeprefix("lrs.")] = value
        elif part_name == "training":
            fields["training"][key] = value
        else:
            # A part may go by its dotted path; a setting's name has no dot.
            part_name, _, key = name.rpartition(".")
            _settings_of(fields, part_name)[key] = value
    # A preset's label may follow from its settings: the name keeps it, whatever the values.
    return MethodEntry.model_validate(fields | {"name": method.label, "space": {}})


def _settings_of(fields: dict[str, Any], part_name: str) -> dict[str, Any]:
    for part in (fields["tuning"], *fields["plugins"]):
        if part["name"] == part_name:
            settings: dict[str, Any] = part["settings"]
            return settings
    raise ValueError(f"the method has no part {part_name!r}")


def grid(space: Space) -> Iterator[Values]:
    """Every combination, the last parameter changing fastest. Ranges have none: see `check_grid`."""
    listed = []
    for dimension in space.values():
        listed.append(dimension.values or ())
    for combination in itertools.product(*listed):
        yield dict(zip(space, combination, strict=True))


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

    Two methods try the same learning rates in the same order, so that their trials are paired and what they train alike is
    trained once: trial n has the n-th choice of all `training.*`, whatever else is searched. Of a combination that was
    tried, only the method's own parameters are drawn again.
    """
    training = {name: dimension for name, dimension in space.items() if name.startswith("training.")}
    own = {name: dimension for name, dimension in space.items() if name not in training}
    # A small space comes to its end: after that every draw is one that was seen.
    seen: set[tuple[Any, ...]] = set()
    for number, training_values in enumerate(_training_draws(training, seed)):
        if len(seen) >= size_of(space):
            return
        for attempt in itertools.count():
            own_values = _own_draw(own, seed, number, attempt)
            combination = (*training_values.values(), *own_values.values())
            if combination not in seen:
                break
        seen.add(combination)
        both = training_values | own_values
        yield {name: both[name] for name in space}


def _training_draws(space: Space, seed: int) -> Iterator[Values]:
    """Choices without end, a function of the searched training settings alone.

    A finite space comes in rounds, each choice once in a round. So no choice is left without a partner while another has
    some, and a method that searches nothing else ends with the first round, having tried what the others then repeat.
    """
    in_round: set[tuple[Any, ...]] = set()
    for draw_index in itertools.count():
        if len(in_round) >= size_of(space):
            in_round = set()
        values: Values = {}
        for name, dimension in space.items():
            values[name] = _draw(name, dimension, seed, draw_index)
        choice = tuple(values.values())
        if choice not in in_round:
            in_round.add(choice)
            yield values


def _own_draw(space: Space, seed: int, number: int, attempt: int) -> Values:
    """A method's own parameters in trial `number`: in shuffled rounds of listed values, so that each comes up equally often.

    Where the combination was tried, at random in each further attempt.
    """
    values: Values = {}
    for name, dimension in space.items():
        if attempt == 0:
            values[name] = _draw(name, dimension, seed, number)
        else:
            values[name] = _draw_again(name, dimension, seed, number, attempt)
    return values


def _draw_again(name: str, dimension: Dimension, seed: int, number: int, attempt: int) -> Any:
    rng = generator(seed, name, "again", number, attempt)
    if dimension.values is not None:
        return dimension.values[int(torch.randint(len(dimension.values), (), generator=rng))]
    return dimension.value_at(float(torch.rand((), generator=rng, dtype=torch.float64)))


def _draw(name: str, dimension: Dimension, seed: int, draw_index: int) -> Any:
    if dimension.values is not None:
        round_index, index_in_round = divmod(draw_index, len(dimension.values))
        order = torch.randperm(len(dimension.values), generator=generator(seed, name, round_index))
        return dimension.values[int(order[index_in_round])]
    fraction = torch.rand((), generator=generator(seed, name, draw_index), dtype=torch.float64)
    return dimension.value_at(float(fraction))
