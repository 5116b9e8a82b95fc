"""The nearest mean classifier against means worked out with numpy from the model's own hidden states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from methods import method_spec
from methods.base import Context, Settings
from methods.features.nmc import Nmc
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from tests.conftest import FAMILIES


def test_the_nearest_class_mean_by_cosine_wins() -> None:
    nmc = Nmc(Settings(), Context(0))
    nmc.sums_Kd = torch.tensor([[3.0, 0.0], [0.0, 0.0], [4.0, 4.0]], dtype=torch.float64)
    nmc.counts_K = torch.tensor([3.0, 0.0, 8.0], dtype=torch.float64)
    scores_BK = nmc.class_scores(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    expected = torch.tensor([[1.0, -torch.inf, 0.5**0.5], [0.6, -torch.inf, 1.4 * 0.5**0.5]])
    torch.testing.assert_close(scores_BK, expected, check_dtype=False)


def test_cosines_are_not_rounded_by_autocast() -> None:
    """Mean-pooled embeddings lie closer together than bfloat16 can tell."""
    nmc = Nmc(Settings(), Context(0))
    nmc.sums_Kd = torch.tensor([[1.0, 0.030], [1.0, 0.032]], dtype=torch.float64)
    nmc.counts_K = torch.ones(2, dtype=torch.float64)
    embedded_Bd = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0300], [1.0, 0.0325]]), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nmc.class_scores(embedded_Bd).argmax(1).tolist() == [0, 1]


def hidden_states(learner: Learner, task: int) -> list[np.ndarray]:
    """The last hidden states of each text alone, [S, d], without any padding."""
    module, found = learner.family.module.eval(), []
    for feature in learner.features(task):
        ids = torch.tensor([feature["source"]])
        with torch.no_grad():
            if module.config.is_encoder_decoder:
                states = module.encoder(input_ids=ids).last_hidden_state
            else:
                base = getattr(module, "bert", None) or module.model
                states = base(input_ids=ids).last_hidden_state
        found.append(states[0].double().numpy())
    return found


@pytest.mark.parametrize("model", FAMILIES)
def test_sums_and_counts_are_those_of_the_unit_mean_embeddings(
    model: str, sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    settings = {"model": model, "methods": ["nmc"], "stream": {"first": 2}, "training": {"micro_batch": 4}}
    sequence = sequence_of(**settings)
    run_sequence(sequence)
    learner = learner_of(**settings)
    labels = list(learner.stream.labels_until(2))
    expected, counts = np.zeros((len(labels), 32)), np.zeros(len(labels))
    for task in range(2):
        for example, states in zip(learner.stream.tasks[task].read("train"), hidden_states(learner, task), strict=True):
            mean = states.mean(0)
            expected[labels.index(example.label)] += mean / np.linalg.norm(mean)
            counts[labels.index(example.label)] += 1
    state = Store(Path(sequence.out)).load(sequence.keys[2]).method["0:nmc"]
    np.testing.assert_array_equal(state["counts"].numpy(), counts)
    np.testing.assert_allclose(state["sums"].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_stopping_changes_nothing_and_no_step_is_made(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    whole, stopped = (sequence_of(out, model=model, methods=["nmc"], stream={"first": 3}) for out in ("a", "b"))
    view = run_sequence(whole)
    run_sequence(stopped, until=2)
    resumed = run_sequence(stopped)
    assert (view.matrix() == resumed.matrix()).all()
    assert all(not task.steps for task in view.by_task.values())
    assert np.isnan(view.matrix("score_options")).all() == (model == "tiny-t5")
    for row in (1, 2, 3):
        one, two = (Store(Path(s.out)).load(s.keys[row]) for s in (whole, stopped))
        assert not one.weights
        assert torch.equal(one.method["0:nmc"]["sums"], two.method["0:nmc"]["sums"])


def test_nothing_can_be_plugged_in() -> None:
    with pytest.raises(ValueError, match="'migu': 'nmc' trains nothing"):
        method_spec({"tuning": "nmc", "plugins": ["migu"]})
