"""The answers behind a score, as a user reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.evaluation.scorers import SCORERS, ExactMatch
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.report.predictions import (
    next_command,
    print_predictions,
    read_predictions,
    select_predictions,
)
from orchestrator.store.predictions import predictions_file
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Two methods over two tasks, of which the first one is trained and scored."""
    out = tmp_path_factory.mktemp("out")
    config = small_config(out, model="tiny-bert", methods=["ft", "ewc"], stream={"first": 2})
    sequences = plan(config)
    run_sequence(sequences[0])
    return Experiment(config, tuple(sequences))


def test_the_predictions_of_a_score(experiment: Experiment) -> None:
    first, second = experiment.sequences[0].tasks
    result = read_predictions(experiment, first, after=second)
    assert (result["method"], result["seed"], result["tasks_seen"]) == ("ft", 7, 2)
    assert result["after"] == f"after {second}"
    assert len(result["predictions"]) == result["n"] == 10
    assert sum(p["correct"] for p in result["predictions"]) == result["correct"]
    assert result == read_predictions(experiment, first) == read_predictions(experiment, first, after="2")
    assert read_predictions(experiment, first, after="0")["after"] == "before training"
    assert read_predictions(experiment, first, after=first)["tasks_seen"] == 1


def test_the_unit_is_that_of_the_tasks_scorer(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    class InPoints(ExactMatch):
        unit = "points"

    first = experiment.sequences[0].tasks[0]
    monkeypatch.setitem(SCORERS, "verbatim", InPoints())
    assert read_predictions(experiment, first)["unit"] == "%"
    monkeypatch.setitem(SCORERS, "exact-match", InPoints())
    assert read_predictions(experiment, first)["unit"] == "points"


def wrong_requests() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"task": "review"}, "--task: unknown task 'review'. Did you mean 'reviews'?"),
        ({"task": "reviews", "after": "headline"}, "--after: unknown task 'headline'. Did you mean 'headlines'?"),
        ({"task": "reviews", "after": "3"}, "--after: 3 is more than the 2 tasks"),
        ({"task": "reviews", "method": "ftt"}, "--method: unknown method 'ftt'. Did you mean 'ft'?"),
        ({"task": "reviews", "seed": 8}, "--seed: unknown seed '8'."),
        ({"task": "reviews", "stream": "embeded"}, "--stream: unknown stream 'embeded'. Did you mean 'embedded'?"),
        ({"task": "reviews", "method": "ewc"}, "no score on 'reviews' yet: ewc, seed 7, after headlines"),
    ]


@pytest.mark.parametrize(("request_", "message"), wrong_requests())
def test_what_is_not_there_is_said_in_one_line(request_: dict[str, Any], message: str, experiment: Experiment) -> None:
    with pytest.raises(UserError) as caught:
        read_predictions(experiment, **request_)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_score_that_was_not_asked_for_is_said_to_be_none(experiment: Experiment) -> None:
    sequences = []
    for sequence in experiment.sequences:
        seen = sequence.evaluation.model_copy(update={"rows": "seen"})
        sequences.append(sequence.model_copy(update={"evaluation": seen}))
    asked = Experiment(experiment.config, tuple(sequences))
    with pytest.raises(
        UserError, match="no score on 'headlines' was asked for: ewc, seed 7, after reviews; the same run"
    ):
        read_predictions(asked, "headlines", after="reviews", method="ewc")
    with pytest.raises(UserError, match="no score on 'headlines' yet"):
        read_predictions(asked, "headlines", method="ewc")
    assert read_predictions(asked, "headlines", after="reviews", method="ft")["n"] == 10, "it is there all the same"


def test_predictions_that_are_missing_or_damaged_are_said_with_the_way_out(experiment: Experiment) -> None:
    sequence = experiment.sequences[0]
    file = predictions_file(Path(experiment.config.out), sequence.score_keys[0][1])
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-5])
        with pytest.raises(UserError, match=r"not readable as predictions.*orchestrator evaluate small"):
            read_predictions(experiment, "headlines", after="0")
        file.unlink()
        with pytest.raises(UserError, match=r"no predictions were kept.*older version.*orchestrator evaluate small"):
            read_predictions(experiment, "headlines", after="0")
    finally:
        file.write_bytes(whole)


def result_with(*predictions: dict[str, Any]) -> dict[str, Any]:
    correct = sum(prediction["correct"] for prediction in predictions)
    return {
        "experiment": "small", "method": "ft", "seed": 7, "task": "reviews", "tasks_seen": 1, "after": "after reviews",
        "score": 100 * correct / len(predictions), "scorer": "exact-match", "unit": "%",
        "correct": correct, "n": len(predictions), "predictions": list(predictions),
    }  # fmt: skip


RIGHT = {"example": 0, "row": 12, "target": "good", "prediction": "Good.", "correct": True, "option": None}
WRONG = {"example": 1, "row": 3, "target": "bad", "prediction": "a\nb", "correct": False, "option": None}


def test_wrong_answers_alone_and_a_limit() -> None:
    assert select_predictions([RIGHT, WRONG, WRONG], wrong=True, limit=None) == [WRONG, WRONG]
    assert select_predictions([RIGHT, WRONG, WRONG], wrong=True, limit=1) == [WRONG]
    assert select_predictions([RIGHT, WRONG], wrong=False, limit=1) == [RIGHT]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table(width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        print_predictions(result_with(RIGHT, WRONG), [RIGHT, WRONG], console)
    text = captured.get()
    assert "ft, seed 7: reviews after reviews, 50.0 % (1 of 2 correct)" in text
    right, wrong = text.splitlines()[-3:-1]
    assert right.split() == ["0", "12", "✓", "good", "Good."]
    assert wrong.split() == ["1", "3", "✗", "bad", r"'a\nb'"]
    assert "among options" not in text
    with console.capture() as captured:
        option = WRONG | {"option": "good"}
        print_predictions(result_with(option), [option], console)
    assert "among options" in captured.get()


def test_the_next_command_shows_what_was_not_shown() -> None:
    result = result_with(RIGHT, WRONG, WRONG)
    line = next_command(result, 3, wrong=False, out="runs")
    assert line.startswith("the 2 wrong ones: orchestrator predictions small --task reviews --after 1 --method 'ft'")
    assert line.endswith("--out runs --wrong")
    assert next_command(result, 1, wrong=True, out="runs").endswith("--wrong --limit 2")
    assert next_command(result, 2, wrong=True, out="runs").endswith("orchestrator report small --matrices --out runs")


def printed(scorer: str, **changes: Any) -> list[str]:
    result = result_with({**RIGHT, "score": 0.5}, {**WRONG, "score": 1.25}) | {"scorer": scorer, **changes}
    console = Console(width=100)
    with console.capture() as captured:
        print_predictions(result, result["predictions"], console)
    return captured.get().splitlines()


def test_a_graded_answer_has_its_own_number() -> None:
    lines = printed("rouge-l")
    assert "50.0 % (1 of 2 correct)" in lines[0]
    assert lines[2].split() == ["example", "row", "score", "target", "prediction"]
    assert lines[4].split() == ["0", "12", "50.0", "✓", "good", "Good."]


def test_where_nothing_is_answered_there_are_likelihoods_alone() -> None:
    lines = printed("perplexity", unit="perplexity", score=12.345)
    assert "12.35 perplexity (2 examples)" in lines[0] or "12.34 perplexity (2 examples)" in lines[0]
    assert lines[2].split() == ["example", "row", "score", "target"]
    assert lines[5].split() == ["1", "3", "1.25", "bad"]
