"""What a learner loads, and when."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.orchestrator.training.helpers import EWC, equal


def test_a_sequence_with_nothing_left_to_do_loads_no_model(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    run_sequence(sequence)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("orchestrator.training.learner.load_family", refuse)
    assert run_sequence(sequence).status == "finished"


def test_going_back_forgets_what_the_method_has_learnt_since(learner_of: Callable[..., Learner]) -> None:
    """EWC has no state before its first task, so nothing in that checkpoint would overwrite what it keeps by now."""
    learner = learner_of(methods=[EWC], stream={"first": 2})
    initial = State(copy.deepcopy(learner.weights()), dict(learner.stack.state_dict()), {})
    assert initial.method == {}
    first = copy.deepcopy(train_task(learner, 0, lambda event: None))
    second = copy.deepcopy(train_task(learner, 1, lambda event: None))
    learner.load(copy.copy(first), 1)
    again = train_task(learner, 1, lambda event: None)
    assert equal(dict(again.weights), dict(second.weights))
    assert learner.state.is_after(2, "score")
    learner.load(initial, 0)
    assert learner.stack.state_dict() == {}
    from_the_start = train_task(learner, 0, lambda event: None)
    assert equal(dict(from_the_start.weights), dict(first.weights))


def test_another_model_than_the_planned_one_is_refused(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of().model_copy(update={"model_identity": "another"})
    with pytest.raises(RuntimeError, match="has changed"):
        run_sequence(sequence)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_global_batch_is_cut_by_the_length_of_what_is_read(model: str, learner_of: Callable[..., Learner]) -> None:
    """A decoder reads the answer behind the text: a short text with a long answer is long."""
    learner = learner_of(model=model, training={"micro_batch": 1})
    lengths = [(5, 1), (2, 6), (3, 1), (4, 1)]
    features: Any = [{"source": [9] * s, "target": [9] * t, "class_index": 0} for s, t in lengths]
    read = [len(batch[0]["source"]) for _, batch in learner.my_micro_batches(features)]
    assert read == ([3, 4, 5, 2] if model == "tiny-llama" else [2, 3, 4, 5])
