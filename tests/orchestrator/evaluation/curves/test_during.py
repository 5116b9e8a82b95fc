"""Scores amid training: when there are any, on which examples, and that a look leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from orchestrator.config.running import DuringConfig
from orchestrator.evaluation.curves.during import Looks, drawn_examples, point_steps, undisturbed
from orchestrator.evaluation.scores import score_task
from orchestrator.training.learner import Learner
from streams import Example


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"),
    [
        (25, 10, [0, 1, 2, 4, 8, 10, 20, 25]),
        (20, 10, [0, 1, 2, 4, 8, 10, 20]),
        (3, 10, [0, 1, 2, 3]),
        (4, 1, [0, 1, 2, 3, 4]),
        (9, 4, [0, 1, 2, 4, 8, 9]),
        (1, 1, [0, 1]),
        (70, 16, [0, 1, 2, 4, 8, 16, 32, 48, 64, 70]),
    ],
)
def test_points_are_dense_after_a_switch_and_the_last_step_has_one(
    num_steps: int, every: int, expected: list[int]
) -> None:
    assert point_steps(num_steps, every) == expected


def test_examples_are_drawn_by_the_seed_and_the_task() -> None:
    examples = [Example(f"text {number}", "yes", number) for number in range(50)]
    drawn = drawn_examples(examples, 10, 7, "news")
    rows = [example.row for example in drawn]
    assert len(set(rows)) == 10
    assert rows == sorted(rows)
    assert rows != list(range(10)), "a draw, and not the beginning"
    assert drawn_examples(examples, 10, 7, "news") == drawn
    assert drawn_examples(examples, 10, 8, "news") != drawn
    assert drawn_examples(examples, 10, 7, "law") != drawn
    assert drawn_examples(examples, 60, 7, "news") == examples, "of few all"


def test_a_look_leaves_modes_and_generators_as_they_were(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    module = learner.family.module
    module.train()
    # as a method may do that keeps a part of the model without dropout
    frozen = next(iter(module.children()))
    frozen.eval()
    before = [part.training for part in module.modules()]
    assert len(set(before)) == 2
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with undisturbed(learner.scored_model()):
        torch.rand(5)
        module.eval()
    assert [part.training for part in module.modules()] == before
    assert torch.equal(torch.rand(2), expected)


def test_a_look_at_a_whole_split_is_its_score(learner_of: Callable[..., Learner]) -> None:
    """Of a model that answers some right and others wrong."""
    learner = learner_of(model="tiny-bert", evaluation={"during": {"every": 1, "examples": 4}})
    model = learner.scored_model()
    task = learner.stream.tasks[0]
    whole = score_task(model, task, "test", 64)
    assert 0 < whole.correct < whole.n == 10 or whole.score_options
    for most in (10, 4):
        looks = Looks(DuringConfig(every=1, examples=most), learner.sequence, learner.stream)
        found = looks.score(model, 0)
        rows = {example.row for example in drawn_examples(task.read("test"), most, 7, task.test_hash)}
        expected = [p.prediction for p in whole.predictions if p.row in rows]
        assert found.n == most
        assert [p.prediction for p in found.predictions] == expected
        assert found.score == 100 * sum(p.correct for p in whole.predictions if p.row in rows) / most
