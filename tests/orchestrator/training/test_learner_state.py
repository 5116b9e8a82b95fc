"""The two states of an annealed task: which is scored, and which the next task starts from."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.evaluation.scores import score_task
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.training.batches import global_batches
from orchestrator.training.learner import Learner
from orchestrator.training.learner_state import NOTHING_WHOLE
from orchestrator.training.parallel import Parallel
from orchestrator.training.scoring import score_state
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.orchestrator.training.helpers import ANNEALED, EWC, equal, stored
from tests.steps import steps_of

ROOT = Path(__file__).parents[3]


def test_the_annealed_weights_are_scored_and_anchors_are_of_the_resume_state(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    sequence = sequence_of(methods=[EWC], stream={"first": 2}, training={**ANNEALED, "lr": 0.1})
    run_sequence(sequence, evaluate=False)
    state = stored(sequence, 1)
    assert state.resume_state
    assert equal(state.method["0:ewc"]["anchor"], dict(state.resume_state.weights))
    score_state(sequence, 1)
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load(Store(Path(sequence.out)).load(sequence.keys[1]), 1)
    assert equal({n: w.detach() for n, w in learner.weights().items()}, state.weights)
    assert learner.state.is_after(1, "score")
    assert not learner.state.is_after(1, "train")
    task = learner.stream.tasks[0]
    expected = score_task(learner.scored_model(), task, "test", 10)
    score = Store(Path(sequence.out)).load_score(sequence.score_keys[1][0])
    assert score
    assert score["correct"] == expected.correct


def test_the_next_task_goes_on_from_before_the_annealing(sequence_of: Callable[..., SequencePlan]) -> None:
    """Of two steps a task one is not annealed. So the resume state after task 2 is one step of AdamW, worked
    here by its formula, from that after task 1, with that step's moments and the constant rate.
    """
    sequence = sequence_of(stream={"first": 2}, training={"schedule": "infinite", "budget": {"steps": 2}})
    run_sequence(sequence, evaluate=False)
    first, second = stored(sequence, 1), stored(sequence, 2)
    assert first.resume_state
    assert second.resume_state
    assert [step.lr for step in steps_of(sequence.out, sequence.id, 1)] == pytest.approx([1e-4, 1e-5])

    def first_step(start: State, weights: Any, moments: Any) -> dict[str, Tensor]:
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load(start, 1)
        learner.family.load_weights(weights, learner.parallel.write_rows)
        features = learner.features(1)
        chosen = [features[i] for i in next(global_batches(len(features), 8, 7, 1, 0))]
        summed, _ = learner.family.forward(learner.family.module, learner.family.collate(chosen))
        (summed / sum(len(f["target"]) for f in chosen)).backward()
        parameters = dict(learner.family.module.named_parameters())
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters.values() if p.grad is not None))
        found = {}
        for name, p in parameters.items():
            assert p.grad is not None
            g, w = p.grad.double() * min(1.0, 1.0 / (norm + 1e-6)), p.detach().double()
            old = moments.get(name, {"step": torch.zeros(()), "exp_avg": 0 * g, "exp_avg_sq": 0 * g})
            t = float(old["step"]) + 1
            m, v = 0.9 * old["exp_avg"] + 0.1 * g, 0.999 * old["exp_avg_sq"] + 0.001 * g**2
            decayed = w * (1 - 1e-4 * 0.01) if w.ndim > 1 else w
            found[name] = decayed - 1e-4 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        return found

    def distance(expected: dict[str, Tensor]) -> float:
        assert second.resume_state
        return max(float((w - expected[n]).abs().max()) for n, w in second.resume_state.weights.items())

    assert {float(m["step"]) for m in first.resume_state.optimizer_state.values()} == {1.0}
    assert {float(m["step"]) for m in second.resume_state.optimizer_state.values()} == {2.0}
    assert distance(first_step(first, first.resume_state.weights, first.resume_state.optimizer_state)) < 2e-6
    assert distance(first_step(first, first.resume_state.weights, {})) > 5e-5, "the moments would not matter"
    assert distance(first_step(first, first.weights, first.resume_state.optimizer_state)) > 5e-6, (
        "the annealing would not matter"
    )


def test_training_says_what_is_held_and_returns_what_to_store(learner_of: Callable[..., Learner]) -> None:
    plain = learner_of()
    train_task(plain, 0, lambda event: None)
    assert plain.state.is_after(1, "train")
    assert plain.state.is_after(1, "score")
    annealed = learner_of(training=ANNEALED)
    state = train_task(annealed, 0, lambda event: None)
    assert annealed.state.is_after(1, "train")
    assert not annealed.state.is_after(1, "score"), "the model holds the weights from before annealing"
    assert state.resume_state
    assert equal({n: w.detach() for n, w in annealed.weights().items()}, state.resume_state.weights)
    assert equal(annealed.state.optimizer_state, state.resume_state.optimizer_state)
    assert not equal(state.weights, state.resume_state.weights)


def test_a_learner_that_failed_holds_nothing_whole(
    learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of()
    before = {name: weight.detach().clone() for name, weight in learner.weights().items()}

    def fail(*arguments: Any) -> None:
        raise KeyError("a plug-in's own")

    monkeypatch.setattr(learner.stack, "after_task", fail)
    with pytest.raises(KeyError):
        train_task(learner, 0, lambda event: None)
    assert learner.state == NOTHING_WHOLE
    learner.load(State({}, {}, {}), tasks_seen=0)
    assert learner.state.is_after(0, "train")
    assert equal({name: weight.detach() for name, weight in learner.weights().items()}, before)


def test_the_state_of_a_learner_is_assigned_in_one_place() -> None:
    assignments = []
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store):
                        assignments.append((path.name, function.name))
    assert assignments == [("learner.py", "hold")]
