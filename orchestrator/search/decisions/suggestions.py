"""Which values a trial tries: a pure function of the searcher's seed, the trial's number and its history."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
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


class Sampler:
    """Suggests the values of one method's trials, one after the other.

    It keeps what it has drawn and what it has told Optuna of each trial, so that a suggestion takes no longer for all those
    before it. What it suggests does not depend on that: one that is made anew suggests the same.
    """

    def __init__(self, search: SearchConfig, space: Space) -> None:
        self.search = search
        self.space = space
        self._draws = grid(space) if search.searcher == "grid" else random_draws(space, search.seed)
        self._drawn: list[Values] = []
        self._told: list[tuple[TrialRecord, optuna.trial.FrozenTrial]] = []

    def suggest(self, number: int, records: Sequence[TrialRecord]) -> Suggestion | None:
        """The values of trial `number` (from 0); None where the space has no more to try.

        `records` are the method's trials with lower numbers, in their order.
        """
        if not self.search.learns:
            return self._nth_draw(number)
        tried = []
        for record in records:
            tried.append(record.values)
        for repeat in range(MAX_REPEATS):
            suggestion = self._ask_optuna(records, f"{self.search.seed}/{number}/{repeat}")
            if suggestion.values not in tried:
                return suggestion
        # Optuna insists on what is known, so the rest of the space is walked in random order.
        for values in random_draws(self.space, self.search.seed):
            if values not in tried:
                return Suggestion(values)
        return None

    def _nth_draw(self, number: int) -> Suggestion | None:
        while len(self._drawn) <= number:
            values = next(self._draws, None)
            if values is None:
                return None
            self._drawn.append(values)
        return Suggestion(self._drawn[number])

    def _ask_optuna(self, records: Sequence[TrialRecord], seed: str) -> Suggestion:
        """Ask a study that is made anew and told of every trial before.

        A study that lived on would depend on what this process has seen; one made anew depends on the journal alone.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler_seed = random.Random(seed).randrange(2**31)
        sampler: optuna.samplers.BaseSampler
        if self.search.searcher == "tpe":
            # Trials that run count as bad ones meanwhile, so that those side by side do not all try the same.
            sampler = optuna.samplers.TPESampler(seed=sampler_seed, constant_liar=True)
        else:
            sampler = optuna.samplers.CmaEsSampler(seed=sampler_seed, warn_independent_sampling=False)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for number, record in enumerate(records):
            study.add_trial(self._optuna_trial(number, record))
        trial = study.ask(_distributions(self.space))
        values: Values = {}
        for name, dimension in self.space.items():
            value = trial.params[name]
            if dimension.values is not None:
                value = dimension.values[int(value)]
            values[name] = value
        # CMA-ES keeps its population in the attributes of its trials: without these it would start again each time.
        asked = study.get_trials(deepcopy=False)[-1]
        return Suggestion(values, dict(asked.system_attrs))

    def _optuna_trial(self, number: int, record: TrialRecord) -> optuna.trial.FrozenTrial:
        """Optuna's form of the trial of that number, made once for as long as the trial stays as it was."""
        if number < len(self._told) and self._told[number][0] == record:
            return self._told[number][1]
        made = _told_trial(self.space, record)
        # What comes after it has changed too, as a rule: a round has ended.
        del self._told[number:]
        self._told.append((record, made))
        return made


def _told_trial(space: Space, record: TrialRecord) -> optuna.trial.FrozenTrial:
    import optuna

    # This module is read without Optuna, which only those searches need that learn.
    from orchestrator.search.decisions.told_trial import ToldTrial

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
    made = optuna.trial.create_trial(
        state=state, value=score, params=params, distributions=_distributions(space), system_attrs=record.notes
    )
    return ToldTrial.of(made)


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
