"""Weights of models that a method's settings name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import OWN_MODEL
from orchestrator.models.source import find_model
from orchestrator.models.weights.other_models import identity_of, weights_of
from orchestrator.training.learner import Learner


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-t5"])
def test_the_models_own_weights(model: str, learner_of: Callable[..., Learner]) -> None:
    """Those before training by no name; under its name a built-in one is another draw, the same for every seed."""
    learner = learner_of(model=model)
    config, labels = learner.sequence.model, learner.family.labels
    state = torch.random.get_rng_state()
    own = weights_of(config, labels, learner.sequence.seed, "")
    named = weights_of(config, labels, learner.sequence.seed, OWN_MODEL)
    assert torch.equal(torch.random.get_rng_state(), state), "the run's own draws are as they would be"
    heads = {name for name in dict(learner.family.module.named_parameters()) if name.startswith("classifier")}
    assert bool(heads) == (model == "tiny-bert")
    assert own.keys() == named.keys() == dict(learner.family.module.named_parameters()).keys() - heads
    for name, parameter in learner.family.module.named_parameters():
        if name not in heads:
            assert torch.equal(own[name], parameter)
            assert not own[name].requires_grad
    matrices = [name for name, weight in own.items() if weight.ndim == 2]
    assert not any(torch.equal(own[name], named[name]) for name in matrices)
    again = weights_of(config, labels, 12345, OWN_MODEL)
    assert all(torch.equal(named[name], again[name]) for name in named)
    assert all(torch.equal(named[name], w) for name, w in weights_of(config, labels, 1, config.name).items())
    shapes = weights_of(config, labels, 0, "", has_values=False)
    assert {name: w.shape for name, w in shapes.items()} == {name: w.shape for name, w in own.items()}
    assert all(weight.is_meta for weight in shapes.values())


def test_another_built_in_model_comes_without_the_runs_changes(learner_of: Callable[..., Learner]) -> None:
    config = learner_of(model="tiny-bert", overrides={"hidden_size": 64}).sequence.model
    assert weights_of(config, ["a"], 0, "tiny-roberta")["roberta.embeddings.word_embeddings.weight"].shape[1] == 128
    assert identity_of(config, "tiny-bert") == find_model(config).identity
    assert identity_of(config, "tiny-roberta").startswith("tiny-roberta:")
