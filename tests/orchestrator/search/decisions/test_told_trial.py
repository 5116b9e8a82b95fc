"""A trial that Optuna is told of: a study holds it as any other, and leaves it as it was."""

from __future__ import annotations

import optuna

from orchestrator.search.decisions.told_trial import ToldTrial


def test_two_studies_that_are_told_of_it_do_not_disturb_each_other() -> None:
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    made = optuna.trial.create_trial(value=3.0, params={"x": 0.25}, distributions=space, system_attrs={"a": [1]})
    told = ToldTrial.of(made)
    numbers = []
    for before in (0, 2):
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
        for _ in range(before):
            study.add_trial(made)
        study.add_trial(told)
        study.ask(space)
        held = study.get_trials(deepcopy=False)[before]
        assert (held.value, held.params, held.system_attrs) == (3.0, {"x": 0.25}, {"a": [1]})
        assert held.system_attrs is told.system_attrs, "nothing of it is copied"
        numbers.append((held.number, told.number))
    assert numbers == [(0, -1), (2, -1)]
