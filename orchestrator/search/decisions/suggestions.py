"""Which values a trial tries: a pure function of the searcher's seed, the trial's number and its history."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.search.space import Space, Values, grid, random_draws

if TYPE_CHECKING:
    import optuna

# How often a sampler is asked again when it suggests what has been tried. TPE on a small space repeats itself often.
MAX_REPEATS = 20


@dataclass(frozen=True)
class TrialRecord:
    """An earlier trial: its values, its score (None: it has none), and what the sampler noted on it.

    `running` says that it is of the same round, so that nothing but its values is known.
    """

    values: Values
    score: float | None
    running: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """Values to try, and what the sampler wants to remember of how it came to them."""

    values: Values
    notes: dict[str, Any] = field(default_factory=dict)


def suggest_values(
    search: SearchConfig, space: Space, number: int, records: Sequence[TrialRecord]
) -> Suggestion | None:
    """The values of a method's trial `number` (from 0); None where the space has no more to try.

    `records` are the method's trials with lower numbers, in their order.
    """
    if search.searcher == "random":
        return _first(itertools.islice(random_draws(space, search.seed), number, None))
    if search.searcher == "grid":
        return _first(itertools.islice(grid(space), number, None))
    tried = []
    for record in records:
        tried.append(record.values)
    for repeat in range(MAX_REPEATS):
        suggestion = _ask_sampler(search, space, records, f"{search.seed}/{number}/{repeat}")
        if suggestion.values not in tried:
            return suggestion
    # The sampler insists on what is known, so the rest of the space is walked in random order.
    for values in random_draws(space, search.seed):
        if values not in tried:
            return Suggestion(values)
    return None


def _first(draws: Iterator[Values]) -> Suggestion | None:
    values = next(draws, None)
    if values is None:
        return None
    return Suggestion(values)


def _ask_sampler(search: SearchConfig, space: Space, records: Sequence[TrialRecord], seed: str) -> Suggestion:
    """Ask an Optuna sampler that is made anew and told of every trial before.

    A sampler that lived on would depend on what this process has seen; one made anew depends on the journal alone.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler_seed = random.Random(seed).randrange(2**31)
    sampler: optuna.samplers.BaseSampler
    if search.searcher == "tpe":
        # Trials that run count as bad ones meanwhile, so that those side by side do not all try the same.
        sampler = optuna.samplers.TPESampler(seed=sampler_seed, constant_liar=True)
    else:
        sampler = optuna.samplers.CmaEsSampler(seed=sampler_seed, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for record in records:
        study.add_trial(_optuna_trial(space, record))
    trial = study.ask(_distributions(space))
    values: Values = {}
    for name, dimension in space.items():
        value = trial.params[name]
        if dimension.values is not None:
            value = dimension.values[int(value)]
        values[name] = value
    # CMA-ES keeps its population in the attributes of its trials: without these it would start again each time.
    return Suggestion(values, dict(study.trials[-1].system_attrs))


def _optuna_trial(space: Space, record: TrialRecord) -> optuna.trial.FrozenTrial:
    import optuna

    if record.running:
        state = optuna.trial.TrialState.RUNNING
    elif record.score is None:
        state = optuna.trial.TrialState.FAIL
    else:
        state = optuna.trial.TrialState.COMPLETE
    params = {}
    for name, dimension in space.items():
        value = record.values[name]
        if dimension.values is not None:
            value = dimension.values.index(value)
        params[name] = value
    score = None
    if state == optuna.trial.TrialState.COMPLETE:
        score = record.score
    return optuna.trial.create_trial(
        state=state, value=score, params=params, distributions=_distributions(space), system_attrs=record.notes
    )


def _distributions(space: Space) -> dict[str, Any]:
    return {name: _distribution(dimension) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> Any:
    """Optuna's word for a dimension. A listed value goes by its index in the list.

    Listed numbers in rising order are a scale, on which a neighbour's score says something; other lists are choices.
    """
    import optuna

    if dimension.values is not None:
        if is_scale(dimension):
            return optuna.distributions.IntDistribution(0, len(dimension.values) - 1)
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    assert dimension.low is not None and dimension.high is not None
    if dimension.integer:
        lowest = math.ceil(dimension.low)
        highest = math.floor(dimension.high)
        return optuna.distributions.IntDistribution(lowest, highest, log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def is_scale(dimension: Dimension) -> bool:
    """Whether the listed values are two or more numbers in rising order."""
    numbers: list[float] = []
    for value in dimension.values or ():
        # True and False are integers to Python, but no scale.
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        numbers.append(value)
    return len(numbers) > 1 and sorted(numbers) == numbers
