"""Which values the next trial tries: a pure function of the searcher's seed, the trial's number and the trials before it.

So a search that was stopped goes on as if it had not been: nothing is kept but the trials themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.search.space import Space, Values, grid, random_draws

if TYPE_CHECKING:
    import optuna


REPEATS = 20  # how often a sampler is asked again when it proposes what has been tried


@dataclass(frozen=True)
class TrialRecord:
    """An earlier trial: its values, its score (None: still running, or it has none), and what the sampler noted on it."""

    values: Values
    score: float | None
    running: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """Values to try, and what the sampler wants to remember of how it came to them."""

    values: Values
    notes: dict[str, Any] = field(default_factory=dict)


def suggest_values(search: SearchConfig, space: Space, number: int, past: Sequence[TrialRecord]) -> Suggestion | None:
    """The values of a method's trial `number` (from 0); None where the space has no more to try."""
    if search.searcher in ("random", "grid"):
        draws = random_draws(space, search.seed) if search.searcher == "random" else grid(space)
        values = next(itertools.islice(draws, number, None), None)
        return None if values is None else Suggestion(values)
    tried = [p.values for p in past]
    for repeat in range(REPEATS):
        suggestion = _ask(search, space, past, f"{search.seed}/{number}/{repeat}")
        if suggestion.values not in tried:
            return suggestion
    unseen = (values for values in random_draws(space, search.seed) if values not in tried)
    values = next(unseen, None)
    return None if values is None else Suggestion(values)


def _ask(search: SearchConfig, space: Space, past: Sequence[TrialRecord], seed: str) -> Suggestion:
    """Ask an Optuna sampler that is made anew and told of every trial before."""
    import random

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = random.Random(seed).randrange(2**31)
    sampler: optuna.samplers.BaseSampler
    if search.searcher == "tpe":
        sampler = optuna.samplers.TPESampler(seed=drawn, constant_liar=True)
    else:
        sampler = optuna.samplers.CmaEsSampler(seed=drawn, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(_frozen(space, p) for p in past)
    trial = study.ask(_distributions(space))
    index = {name: d.values[int(trial.params[name])] for name, d in space.items() if d.values is not None}
    values = {name: index.get(name, trial.params[name]) for name in space}
    return Suggestion(values, dict(study.trials[-1].system_attrs))


def _frozen(space: Space, past: TrialRecord) -> optuna.trial.FrozenTrial:
    import optuna

    states = optuna.trial.TrialState
    state = states.RUNNING if past.running else states.FAIL if past.score is None else states.COMPLETE
    params = {
        name: d.values.index(past.values[name]) if d.values is not None else past.values[name]
        for name, d in space.items()
    }
    return optuna.trial.create_trial(
        state=state,
        value=past.score if state == states.COMPLETE else None,
        params=params,
        distributions=_distributions(space),
        system_attrs=past.notes,
    )


def _distributions(space: Space) -> dict[str, Any]:
    return {name: _distribution(dimension) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> Any:
    """Listed numbers in rising order are a scale of places, of which a neighbour says something; other lists are choices."""
    import optuna

    if dimension.values is not None:
        if is_scale(dimension):
            return optuna.distributions.IntDistribution(0, len(dimension.values) - 1)
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    assert dimension.low is not None and dimension.high is not None
    if dimension.integer:
        return optuna.distributions.IntDistribution(
            math.ceil(dimension.low), math.floor(dimension.high), log=dimension.log
        )
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def is_scale(dimension: Dimension) -> bool:
    """Whether the listed values are numbers in rising order."""
    values = dimension.values or ()
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(values) > 1 and sorted(numbers) == numbers
