"""Sequences on corpora: methods work on blocks, and stopping changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.models.corpora import CORPORA, corpus_learner
from tests.orchestrator.training.helpers import stored
from tests.steps import losses_of

REPLAY: dict[str, Any] = {"name": "replay", "tuning": "full", "plugins": [{"name": "replay", "fraction": 0.3}]}


def test_replay_trains_on_blocks_of_the_corpus_before(learner_of: Callable[..., Learner]) -> None:
    learner = corpus_learner(learner_of, "tiny-bert", methods=[REPLAY])
    own, earlier = list(learner.features(1)), list(learner.features(0))
    training_set = learner.training_set(1)
    keys = [feature["block"][0] for feature in training_set]
    num_replayed = -(-3 * len(earlier) // 10)
    assert keys == [own[0]["block"][0]] * len(own) + [earlier[0]["block"][0]] * num_replayed
    assert own[0]["block"][0] != earlier[0]["block"][0]
    # old blocks are masked anew too, as the others in this task's epoch
    first = next(learner.global_batches(1))
    replayed = [feature for batch in (first, next(learner.global_batches(1))) for feature in batch]
    assert all(feature["draw"] == [7, 1, 0] for feature in replayed)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-roberta"])
@pytest.mark.parametrize("method", ["ft", "ft+random", "lora+migu", "ewc"])
def test_a_corpus_is_learnt_with_each_kind_of_method(
    model: str, method: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    training = {"lr": 1e-2, "budget": {"steps": 8}}
    sequence = sequence_of(model=model, stream={**CORPORA, "first": 1}, methods=[method], training=training)
    matrix = run_sequence(sequence).matrix()
    losses = losses_of(sequence.out, sequence.id)
    assert len(losses) == 8
    # adapters of a random model learn slowly
    assert losses[-1] < losses[0]
    assert matrix[1, 0] < 0.99 * matrix[0, 0]


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_stopping_between_corpora_changes_nothing(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    changes: dict[str, Any] = {"model": model, "stream": CORPORA, "methods": [REPLAY], "training": {"epochs": 2}}
    whole = sequence_of(out="whole", **changes)
    run_sequence(whole)
    parts = sequence_of(out="parts", **changes)
    run_sequence(parts, until=1)
    run_sequence(parts)
    assert losses_of(whole.out, whole.id) == losses_of(parts.out, parts.id)
    weights = stored(whole, 2).weights
    for name, weight in stored(parts, 2).weights.items():
        assert torch.equal(weight, weights[name])
    moved = stored(whole, 1).weights
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
