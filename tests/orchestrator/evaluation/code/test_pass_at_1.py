"""Programs against their checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.evaluation.code.isolated_run import can_isolate
from orchestrator.evaluation.code.pass_at_1 import PassAt1, program_of
from orchestrator.evaluation.scorers import SCORERS
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from streams import Example
from tests.conftest import small_config

pytestmark = pytest.mark.skipif(not can_isolate(), reason="this machine cannot shut a process off from the network")

TEXT = 'import math\n\n\ndef half(x):\n    """Half of x."""\n'
CHECKS = "assert half(6) == 3\nassert half(-3) == -1.5"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("    return x / 2\n", True),
        ("    return x // 2\n", False),
        ("    return x / 2\n\nprint(half(2))\nraise ValueError", True),
        ("    return x / 2\n\ndef other(:\n", True),
        ("def half(x):\n    return math.prod([x, 0.5])\n", True),
        ("Here it is:\n```python\ndef half(x):\n    return x * 0.5\n```\nIt halves.", True),
        ("```\ndef half(x):\n    return x * 2", False),
        ("     y = x\n    return y / 2", True),
        ("   y = x\n    return y / 2", True),
        (" def half(x):\n    return x / 2", True),
        ("  return x", False),
        ("", False),
        ("half of it", False),
        ("    return x / 2\n\nexit()", False),
        ("import sys\nsys.exit(0)\ndef half(x):\n    return 7", False),
        ("```python\ndef half(x):\n    raise SystemExit(0)\n```", False),
    ],
)
def test_an_answer_is_right_whose_program_passes(answer: str, right: bool) -> None:
    result = PassAt1().score_example(answer, Example(TEXT, CHECKS))
    assert (result.score, result.correct) == (float(right), right)


def test_the_share_of_programs_that_pass() -> None:
    scorer = SCORERS["pass@1"]
    example = Example(TEXT, CHECKS)
    results = [scorer.score_example(answer, example) for answer in ("    return x / 2", "    return 3", "    return")]
    assert scorer.combined(results) == pytest.approx(100 / 3)
    assert (scorer.unit, scorer.better) == ("%", "higher")


def test_a_task_in_words_asks_for_a_whole_program() -> None:
    assert program_of("Write half.", "def half(x): ...", "check()") == "def half(x): ...\ncheck()\n"


def test_a_sequence_is_scored_by_programs(tmp_path: Path) -> None:
    """Rows as HumanEval has them: the checks are made of two columns."""
    rows = [{"prompt": TEXT, "solution": "    return x / 2", "test": CHECKS, "entry": "half"}] * 3
    train = [{**row, "prompt": f"{i}{TEXT}"} for i, row in enumerate(rows)]
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({**r, "test": r["solution"], "entry": ""}) + "\n" for r in train)
    )
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    task = {"name": "halves", **files, "text": "prompt", "label": "{test}\n{entry}", "labels": [], "scorer": "pass@1"}
    stream = {"name": "code", "tasks": [{**task, "prompt": "plain"}], "dev_fraction": 0}
    config = small_config(tmp_path / "out", model="tiny-llama", streams=[stream], evaluation={"run_code": True})
    (sequence,) = plan(config)
    view = run_sequence(sequence)
    # a model that knows nothing writes no program
    assert view.matrix().tolist() == [[0.0], [0.0]]
