"""The loop is what it is called, and its answers are held against scoring's; the times are nobody's promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.bench.evaluation import (
    LoopAnswers,
    _draw_weights,
    _learner,
    evaluation_costs,
    num_equal,
    plain_loop,
    print_evaluation_costs,
)
from orchestrator.evaluation.scores import score_task
from tests.orchestrator.models.greedy import decode

SMALL = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
STREAM: dict[str, Any] = {"name": "embedded", "first": 1, "max_train": 40, "max_test": 6}


def test_both_give_the_answers_of_a_search_step_by_step(tmp_path: Path) -> None:
    learner = _learner(STREAM, SMALL, tmp_path)
    task = learner.stream.tasks[0]
    family = learner.family
    answers_of_states = []
    for state in (0, 1):
        _draw_weights(learner, state)
        answers = plain_loop(learner, task)
        score = score_task(learner.scored_model(), task, "test", 64)
        sources = [feature["source"] for feature in family.features(task, task.read("test"))]
        limit = family.max_new_tokens(task)  # type: ignore[attr-defined]
        assert limit < 50
        assert answers.whole == [decode(family, source, 50) for source in sources]
        assert answers.beginnings == [decode(family, source, limit) for source in sources]
        assert answers.beginnings == [prediction.prediction for prediction in score.predictions]
        assert answers.beginnings != answers.whole, "no answer is longer than a label"
        assert num_equal(task, score, answers) == 6
        answers_of_states.append(answers.whole)
    assert len(set(answers_of_states[0])) > 3
    assert answers_of_states[0] != answers_of_states[1]


def test_a_difference_is_counted(tmp_path: Path) -> None:
    """An answer that begins otherwise, and one that begins alike and is right in the one alone."""
    learner = _learner(STREAM, SMALL, tmp_path)
    task = learner.stream.tasks[0]
    score = score_task(learner.scored_model(), task, "test", 64)
    predictions = [replace(p, prediction=p.target, correct=True) for p in score.predictions]
    score = replace(score, predictions=tuple(predictions))
    right = [prediction.target for prediction in predictions]
    assert num_equal(task, score, LoopAnswers(right, right)) == 6
    assert num_equal(task, score, LoopAnswers(right, ["wrong", *right[1:]])) == 5
    assert num_equal(task, score, LoopAnswers([*right[:-2], "wrong", "wrong"], right)) == 4


@pytest.mark.parametrize("text", ["embedded", "order1"])
def test_the_result_has_a_line_for_each_task(text: str, request: pytest.FixtureRequest) -> None:
    folder = None
    if text == "order1":
        folder = str(request.getfixturevalue("benchmark_folder"))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("CL_BENCHMARK_DIR", raising=False)
        result = evaluation_costs(Console(quiet=True), states=2, examples=2, sizes=SMALL, text=folder)
    tasks = {"embedded": 5, "order1": 4}[text]
    assert (result["bench"], result["text"], result["states"]) == ("evaluation", text, 2)
    assert len(result["tasks"]) == tasks
    assert result["answers"] == result["equal_answers"] == 2 * tasks * 2
    assert result["equal_predictions"]
    assert result["loop_s"] == pytest.approx(sum(row["loop_s"] for row in result["tasks"].values()), abs=0.01)
    console = Console(record=True, width=80)
    print_evaluation_costs(result | {"equal_predictions": False, "equal_answers": 3}, console)
    shown = console.export_text()
    assert all(name in shown for name in result["tasks"])
    assert f"3 of {2 * tasks * 2} predictions are the loop's: NOT EQUAL" in shown
