"""`orchestrator bench`: where tables and JSON go, and what refutes a claim. The measurements are tested where they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., tuple[int, str, str]]
REUSE: dict[str, Any] = {
    "sequences": 4,
    "tasks_naive": 20,
    "tasks_trained": 11,
    "seconds_naive": 8.0,
    "seconds_shared": 5.0,
    "equal_results": True,
    "tasks_saved": 0.45,
    "time_ratio": 0.625,
    "search": {"trials": 3, "stopped": 1, "tasks_naive": 15, "tasks_trained": 9, "ratio": 0.6, "same_choice": True},
}
ROW = {
    "method": "ft",
    "step": 1.0,
    "ms_a_step": 3.5,
    "once_s": 0.2,
    "checkpoint_mb": 1.0,
    "state_mb": 0.0,
    "peak_mb": 7.0,
}


@pytest.mark.parametrize(("equal", "expected"), [(True, 0), (False, 1)])
def test_other_scores_refute_that_sharing_changes_none(
    equal: bool, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = REUSE | {"equal_results": equal}
    monkeypatch.setattr("orchestrator.bench.search_reuse", lambda console: result)
    code, stdout, stderr = call("bench", "search-reuse")
    assert (code, stderr) == (expected, "")
    assert "45 % of the tasks were not trained again" in stdout
    assert ("NOT EQUAL" in stdout) == (not equal)
    code, stdout, stderr = call("bench", "search-reuse", "--json")
    assert code == expected
    assert json.loads(stdout) == result, "stdout is the object alone"
    assert "45 % of the tasks" in stderr


def test_the_model_and_the_rounds_reach_the_measurement(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(console: Any, model: str, rounds: int) -> list[dict[str, Any]]:
        asked.append((model, rounds))
        return [ROW]

    monkeypatch.setattr("orchestrator.bench.method_costs", measure)
    code, stdout, _ = call("bench", "methods", "--model", "tiny-bert", "--rounds", 2, "--json")
    assert code == 0
    assert json.loads(stdout) == {"methods": [ROW]}
    code, stdout, _ = call("bench", "methods")
    assert "3.5" in stdout
    assert asked == [("tiny-bert", 2), ("tiny-t5", 3)]


def test_the_rounds_of_a_step_reach_the_measurement(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {
        "model": "t5",
        "device": "cpu",
        "dense_ms": 12.5,
        "ratio_released": 1.04,
        "ratio_masked": 1.03,
        "ratio_row_sparse": 0.82,
        "peak_memory_ratio": None,
    }
    asked = []

    def measure(console: Any, rounds: int) -> dict[str, Any]:
        asked.append(rounds)
        return {"bench": "migu-step", "cases": [case]}

    monkeypatch.setattr("orchestrator.bench.migu_step", measure)
    code, stdout, stderr = call("bench", "migu-step", "--rounds", 4, "--json")
    assert code == 0
    assert json.loads(stdout) == {"bench": "migu-step", "cases": [case]}
    assert "0.82 x" in stderr
    assert asked == [4]


@pytest.mark.parametrize(("equal", "expected"), [(True, 0), (False, 1)])
def test_other_answers_refute_that_scoring_gives_the_loops(
    equal: bool, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {
        "bench": "evaluation",
        "device": "cpu",
        "text": "order1",
        "states": 3,
        "tasks": {"yahoo": {"loop_s": 9.0, "own_s": 3.0, "ratio": 3.0}},
        "answers": 12,
        "distinct_answers": 5,
        "equal_answers": 12,
        "equal_predictions": equal,
        "loop_s": 9.0,
        "own_s": 3.0,
        "ratio": 3.0,
    }
    asked = []

    def measure(console: Any, states: int, examples: int) -> dict[str, Any]:
        asked.append((states, examples))
        return result

    monkeypatch.setattr("orchestrator.bench.evaluation_costs", measure)
    code, stdout, stderr = call("bench", "evaluation", "--states", 3, "--examples", 4, "--json")
    assert code == expected
    assert json.loads(stdout) == result
    assert "3.00 x" in stderr
    assert call("bench", "evaluation")[0] == expected
    assert asked == [(3, 4), (2, 64)]


@pytest.mark.parametrize(("equal", "expected"), [(True, 0), (False, 1)])
def test_other_weights_refute_that_one_pass_gives_the_same(
    equal: bool, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {
        "model": "tiny-t5",
        "device": "cpu",
        "separate_s": 8.0,
        "fused_s": 5.0,
        "ratio": 0.625,
        "largest_difference": 3e-9,
    }
    asked = []

    def measure(console: Any, trials: int, rounds: int) -> dict[str, Any]:
        asked.append((trials, rounds))
        return {"bench": "fused-trials", "trials": trials, "cases": [case], "equal_weights": equal}

    monkeypatch.setattr("orchestrator.bench.fused_trials", measure)
    code, stdout, stderr = call("bench", "fused-trials", "--trials", 8, "--rounds", 2, "--json")
    assert code == expected
    assert json.loads(stdout)["cases"] == [case]
    assert "8 trials" in stderr and "3e-09" in stderr
    assert call("bench", "fused-trials")[0] == expected
    assert asked == [(8, 2), (4, 3)]


@pytest.mark.parametrize(("writes", "expected"), [(False, 0), (True, 1)])
def test_a_second_copy_that_writes_refutes_that_it_sends_nothing(
    writes: bool, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(console: Any, size: Any, long_steps: int) -> dict[str, Any]:
        asked.append((size.sequences, size.tasks, size.steps, long_steps))
        return {"sequences": 7, "tasks": 3, "steps": 2, "report_s": 1.25, "copy_again_writes": writes}

    monkeypatch.setattr("orchestrator.bench.scale", measure)
    options = ("--sequences", 7, "--tasks", 3, "--steps", 2, "--long-steps", 9, "--json")
    code, stdout, stderr = call("bench", "scale", *options)
    assert code == expected
    assert json.loads(stdout)["report_s"] == 1.25
    assert "7 sequences of 3 tasks of 2 steps" in stderr
    code, _, _ = call("bench", "scale")
    assert code == expected
    assert asked == [(7, 3, 2, 9), (1000, 15, 100, 200_000)]


def test_no_rounds_are_none(call: Call) -> None:
    code, _, stderr = call("bench", "methods", "--rounds", 0)
    assert code == 2
    assert "--rounds" in stderr


def test_the_model_of_the_states_reaches_the_measurement(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {setting: {"bytes": 1000} for setting in ("all", "last", "none")}
    result = {
        "bench": "checkpoints",
        "model": "t5-small",
        "tasks": 4,
        "ways": [{"way": "beside training", "train_s": 1.0, "wait_s": 0.25, "end_s": 0.5, "share": 0.2}],
        "inside": {"bytes": 3000, "wait_s": 0.5, "write_s": 1.0, "share": 0.0008, "share_at_most": 0.0025},
        "settings": left | {"delta": {"bytes": 500, "ratio": 0.5, "write_s": 1.0, "read_s": 2.0}},
        "paper": {"all": 4000, "delta": 2000, "last": 1000, "none": 0, "while_running": 2000},
    }
    asked = []

    def measure(console: Any, model: str, rounds: int) -> dict[str, Any]:
        asked.append((model, rounds))
        return result

    monkeypatch.setattr("orchestrator.bench.checkpoint_costs", measure)
    code, stdout, stderr = call("bench", "checkpoints", "--model", "minilm", "--rounds", 2, "--json")
    assert code == 0
    assert json.loads(stdout) == result
    assert "20.0 %" in stderr
    assert "0.080 % of the time, at most 0.25 %" in " ".join(stderr.split())
    call("bench", "checkpoints")
    assert asked == [("minilm", 2), ("t5-small", 1)]


@pytest.mark.parametrize(("peak", "expected"), [(500, 0), (501, 1)])
def test_memory_that_grows_with_the_corpus_refutes_the_claim(
    peak: int, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {
        "documents": 3,
        "tokens": 40,
        "hash_s": 0.1,
        "pack_s": 0.2,
        "pack_tokens_per_s": 9,
        "train_tokens_per_s": 8,
    }
    result |= {"base_mb": 170, "peak_mb": 600, "peak_without_mapped_mb": peak}
    monkeypatch.setattr("orchestrator.bench.corpus_costs", lambda console, mb: {"mb": mb, **result})
    code, stdout, stderr = call("bench", "corpus", "--mb", 7, "--json")
    assert code == expected
    assert json.loads(stdout) == {"mb": 7, **result}
    assert "A corpus of 7 MB" in stderr


@pytest.mark.parametrize(("whole", "expected"), [(True, 0), (False, 1)])
def test_a_round_that_is_not_whole_refutes_that_nothing_is_lost(
    whole: bool, expected: int, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def measure(console: Any, rounds: int, seed: int, kinds: tuple[str, ...], out: Path | None) -> dict[str, Any]:
        asked.append((rounds, seed, kinds, out))
        return {"bench": "chaos", "rounds": rounds, "seed": seed, "kinds": [], "played": [{"whole": whole}]}

    monkeypatch.setattr("orchestrator.bench.chaos", measure)
    options = ("--rounds", 1, "--seed", 5, "--kinds", "interrupt, kill-gcs", "--out", tmp_path, "--json")
    code, stdout, stderr = call("bench", "chaos", *options)
    assert code == expected
    assert json.loads(stdout)["bench"] == "chaos"
    assert f"{int(whole)} of 1 rounds" in stderr
    assert asked == [(1, 5, ("interrupt", "kill-gcs"), tmp_path)]
    code, _, stderr = call("bench", "chaos", "--kinds", "kill-all")
    assert code == 2
    assert stderr.startswith("error: --kinds: 'kill-all' is no kind of fault; allowed: ")
