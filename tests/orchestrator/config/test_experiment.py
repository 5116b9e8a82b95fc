"""Training settings: resolved once, when an experiment is read."""

from __future__ import annotations

from typing import Any

import pytest

from methods.full import Full
from orchestrator.config import experiment
from orchestrator.config.experiment import RunConfig, worker_counts
from orchestrator.config.loading import load_config
from orchestrator.config.running import ScalingConfig
from orchestrator.config.training import TrainingConfig
from orchestrator.search.space import with_values
from tests.orchestrator.config.refusal import refused


def test_a_method_changes_some_phases_and_keeps_the_others() -> None:
    method = "{preset: ft, training: {schedule: infinite, infinite: {final: 0.05}}}"
    config = load_config(None, ["training.infinite={anneal: 0.7, final: 0.02}", f"methods=[{method}, average]"])
    found = config.training_for(config.methods[0])
    assert (found.schedule, found.infinite.anneal, found.infinite.final) == ("infinite", 0.7, 0.05)
    assert config.training_for(config.methods[1]).schedule == "constant"


def test_what_makes_no_sequence_goes_with_the_infinite_schedule() -> None:
    infinite = [
        "training.schedule=infinite",
        "methods=[nmc, {tuning: osf, reference: expert, name: osf alone}, ft, joint]",
    ]
    assert len(load_config(None, infinite).methods) == 4
    assert "'osf'" in refused("training.schedule=infinite", "methods=[osf]")


def test_a_batch_without_room_for_old_examples_is_refused() -> None:
    assert "conpet.rho: 1 leaves a batch of 1 no room" in refused("methods=[conpet]", "training.global_batch=1")


def test_training_is_resolved_when_the_configuration_is_read_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["methods=[ft, {preset: lora, training: {lr: 0.01}}]"])
    calls = []

    def count(shared: Any, method: Any) -> Any:
        calls.append(method.label)
        return resolve(shared, method)

    resolve = experiment.resolve_training
    monkeypatch.setattr(experiment, "resolve_training", count)
    rates = [config.training_for(method).lr for method in config.methods]
    assert rates == [config.training.lr, 0.01]
    assert calls == []


def test_values_that_a_search_tries_pass_the_same_door() -> None:
    """They come under the method's own name, and must not get the settings that were resolved for it."""
    config = load_config(None, ["training.schedule=infinite", "methods=[ft]"])
    tried = with_values(config.methods[0], {"training.lr": 0.5})
    assert tried.label == config.methods[0].label
    assert config.training_for(tried).lr == 0.5
    assert config.training_for(config.methods[0]).lr == config.training.lr
    with pytest.raises(ValueError, match=r"training\.warmup: 0\.9 is greater than"):
        config.training_for(with_values(config.methods[0], {"training.warmup": 0.9}))


def test_a_copy_with_other_methods_resolves_theirs() -> None:
    config = load_config(None, ["methods=[ft]"])
    tried = with_values(config.methods[0], {"training.lr": 0.5})
    frozen = config.model_copy(update={"methods": (tried,)})
    assert frozen.training_for(frozen.methods[0]).lr == 0.5


def test_a_configuration_reads_what_it_writes() -> None:
    config = load_config(None, ["methods=[ft, {preset: lora, training: {lr: 0.01}}]"])
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


METHODS = "methods=[ft, lora, coso, l2p, progprompt, {preset: ft+migu, training: {lr: 0.01}}]"


def test_a_rate_that_is_given_is_for_all_methods_and_else_each_has_its_own() -> None:
    given = load_config(None, ["training.lr=1e-4", METHODS])
    assert [given.training_for(method).lr for method in given.methods] == [1e-4] * 5 + [0.01]
    left = load_config(None, ["training.lr=null", METHODS])
    expected = [1e-3, 1e-3, 3e-3, 0.03, 0.3, 0.01]
    assert [left.training_for(method).lr for method in left.methods] == expected
    # as an experiment's folder keeps it: nothing is given there either
    again = RunConfig.model_validate(left.model_dump(mode="json"))
    assert [again.training_for(method).lr for method in again.methods] == expected


class Told(Full):
    """A tuning method that sets itself to a task before it answers."""

    def before_scoring(self, model: Any, task_id: int) -> None:
        """Nothing: what counts is that it is there."""


class PutBack(Told):
    """One that goes on with the task that is trained."""

    def after_scoring(self, model: Any) -> None:
        """Nothing either."""


def test_a_method_that_looks_would_disturb_is_refused() -> None:
    """Its training would depend on whether anybody asked for scores amid it."""
    values: dict[str, Any] = {"streams": ["embedded"], "evaluation": {"during": {"every": 5}}}
    told = {"name": "told", "tuning": f"{__name__}.Told"}
    put_back = {"name": "put-back", "tuning": f"{__name__}.PutBack"}
    RunConfig.model_validate({**values, "methods": ["ft", "hat", "exssnet", "progprompt", put_back]})
    RunConfig.model_validate({"streams": ["embedded"], "methods": [told]})
    with pytest.raises(ValueError, match=r"evaluation\.during: cannot be combined with .*Told.*no after_scoring"):
        RunConfig.model_validate({**values, "methods": [told]})


def test_a_scenario_gives_epochs_in_place_of_the_training_s() -> None:
    subset = "{name: embedded, scenario: {name: subset, fraction: 0.5, epochs: 4}}"
    config = load_config(None, [f"streams=[{subset}]", "methods=[ft, joint]", "training.epochs_per_task={riddles: 2}"])
    stream = config.streams[0].build()
    training = config.training_on(config.methods[0], stream)
    assert [training.epochs_of(name) for name in stream.task_names] == [4, 4, 4, 4, 2]
    assert config.training_on(config.methods[1], stream).epochs_of("any") == 4
    plain = load_config(None).streams[0].build()
    assert config.training_on(config.methods[0], plain) is config.training_for(config.methods[0])
    budget = load_config(None, [f"streams=[{subset}]", "training.budget={steps: 3}"])
    with pytest.raises(ValueError, match=r"its scenario gives epochs, and training\.budget takes the place of epochs"):
        budget.training_on(budget.methods[0], stream)


def test_the_numbers_of_workers_are_those_that_divide_every_batch() -> None:
    config = load_config("embedded", ["scaling.workers=[1, 8]", "training.micro_batch=4"])
    batches = [TrainingConfig(lr=1e-3, global_batch=size, micro_batch=2) for size in (16, 24)]
    assert worker_counts(batches[:1], config.scaling) == [1, 2, 4, 8]
    assert worker_counts(batches, config.scaling) == [1, 2, 4]
    refusal = refused("scaling.workers=[5, 7]")
    assert "training.global_batch: 32: with training.micro_batch, no number of workers from 5 to 7" in refusal
    assert worker_counts(batches, ScalingConfig(workers=(1, 10**18))) == [1, 2, 4]
    own = "{name: own, tuning: full, training: {global_batch: 15}}"
    assert "15, 32:" in refused("scaling.workers=[2, 8]", f"methods=[ft, {own}]", "training.micro_batch=null")


def test_a_search_takes_one_number_of_workers() -> None:
    assert "scaling.workers: a search takes one number (found [1, 2])" in refused(
        "scaling.workers=[1, 2]", source="embedded-quick"
    )
