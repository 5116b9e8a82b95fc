"""What sharing a store saves counts right; its times are nobody's promise."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from orchestrator.bench.reuse import print_search_reuse, search_reuse

pytestmark = pytest.mark.slow


def test_tasks_are_counted_as_they_are_trained() -> None:
    settings = [
        "streams=[{name: embedded, first: 3, max_train: 96, max_test: 20}]",
        "search.streams=[{name: embedded-tuning, first: 3, max_train: 96, max_dev: 20}]",
        "methods=[ft, ft+migu]",
        "training.global_batch=8",
        "search.trials=3",
        "search.at_once=1",
        "search.reduction=2",
        "search.seed=1",  # the best rate comes first, so the others are stopped
        "search.space={training.lr: [1.0e-6, 3.0e-3, 1.0e-2], migu.ratio: [0.1]}",
    ]
    result = search_reuse(Console(quiet=True), 16, settings)
    # at each of two rates: fine-tuning five tasks; three ratios and the random mask four each, sharing the first
    assert (result["tasks_naive"], result["tasks_trained"]) == (2 * 5 * 5, 2 * (5 + 4 * 4))
    assert result["equal_results"]
    search = result["search"]
    assert (search["trials"], search["tasks_naive"]) == (2 * 3, 2 * 3 * 3)
    # trial n of each method has the same rate and so the same first task; who is stopped has trained two tasks of three
    assert 2 <= search["stopped"] <= 4
    assert search["tasks_trained"] == 18 - search["stopped"] - 3
    assert search["ratio"] == round(search["tasks_trained"] / 18, 3)
    assert search["choices"]["ft"] == {"chosen": "ft-000", "whole": "ft-000", "regret": 0.0}
    output = StringIO()
    print_search_reuse(result, Console(file=output, width=200))
    assert f"ASHA stopped {search['stopped']}, trained {search['tasks_trained']} of 18 tasks" in output.getvalue()


def test_a_choice_that_differs_is_said() -> None:
    result = {"sequences": 1, "tasks_naive": 2, "tasks_trained": 1, "seconds_naive": 2.0, "seconds_shared": 1.0}
    result |= {"equal_results": True, "tasks_saved": 0.5, "time_ratio": 0.5}
    search = {"trials": 2, "stopped": 1, "tasks_naive": 2, "tasks_trained": 1, "ratio": 0.5, "same_choice": False}
    output = StringIO()
    choices = {"ft": {"chosen": "ft-000", "whole": "ft-001", "regret": 2.5}}
    shown = result | {"search": search | {"choices": choices | {"lora": {**choices["ft"], "regret": 0.5}}}}
    print_search_reuse(shown, Console(file=output, width=200))
    assert "with ANOTHER CHOICE, up to 2.5 points worse" in output.getvalue()
