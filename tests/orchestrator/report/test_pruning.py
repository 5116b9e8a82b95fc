"""`orchestrator prune` below the command: what is listed, what goes, and what stays away from a running command."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.report.pruning import print_pruning, prune, shown_bytes
from orchestrator.retention import note_trial, trial_plans
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.store.states.state_files import pack_state
from tests.orchestrator.states import make_states, planned, states_of

# of a state of `make_states` without its history: 100 float32 numbers, two headers of safetensors, and {}
BYTES = 400 + (8 + 64) + (8 + 8) + 2


def test_a_dry_run_says_what_would_go_and_removes_nothing(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    make_states(plain, 0, 1, 2, 3)
    make_states(migu, 2)
    result = prune("small", str(tmp_path), dry_run=True)
    assert (states_of(plain), states_of(migu)) == ([1, 2, 3], [1, 2])
    assert (result["keep"], result["states"], result["bytes"]) == ("last", 2, 2 * BYTES)
    rows = [(row["sequence"], row["states"], row["goes"], row["bytes"]) for row in result["sequences"]]
    assert rows == [(plain.id, 3, 2, 2 * BYTES), (migu.id, 1, 0, 0)], "what two share is listed once"
    done = prune("small", str(tmp_path))
    assert done == result | {"dry_run": False}
    assert (states_of(plain), states_of(migu)) == ([3], [2])
    assert prune("small", str(tmp_path), keep="none")["states"] == 1
    assert (states_of(plain), states_of(migu)) == ([], [2])


def test_without_a_word_it_keeps_what_the_experiment_keeps(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"], checkpoints={"keep": "none"})
    make_states(sequence, 0, 1, 2, 3)
    assert prune("small", str(tmp_path), dry_run=True)["keep"] == "none"
    assert prune("small", str(tmp_path), keep="last", dry_run=True)["states"] == 2


def test_one_sequence_is_pruned_beside_the_others_of_its_experiment(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    make_states(plain, 0, 1, 2, 3)
    make_states(migu, 2, 3)
    result = prune(plain.id, str(tmp_path), keep="none")
    assert (result["experiment"], [row["sequence"] for row in result["sequences"]]) == ("small", [plain.id])
    # the experiment keeps all, and the first state is the other's too
    assert (states_of(plain), states_of(migu)) == ([1], [1, 2, 3])
    assert result["sequences"][0]["kept_for"] == ["small"]


def test_the_trials_of_a_search_are_pruned_too(tmp_path: Path) -> None:
    (trial,) = planned(tmp_path / "elsewhere", methods=["ft"])
    trial = trial.model_copy(update={"out": str(tmp_path)})
    make_states(trial, 0, 1, 2, 3)
    note_trial(str(tmp_path), "search", [trial])
    assert prune("search", str(tmp_path), keep="none")["states"] == 2
    assert states_of(trial) == [1], "the search has not chosen yet"


def test_states_inside_tasks_go_where_nobody_goes_on_with_them(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    make_states(plain, 0, 1, 2)
    (trial,) = planned(tmp_path / "elsewhere", methods=["lora"])
    note_trial(str(tmp_path), "small", [trial.model_copy(update={"out": str(tmp_path)})])
    for key in (plain.keys[2], plain.keys[3], migu.keys[3], trial.keys[1]):
        inside = InTaskStates(tmp_path, key)
        inside.write(4, pack_state(State({"w": torch.ones(2)}, {}, {})), {})

    def left() -> set[str]:
        return {folder.name.partition("-")[0] for folder in (tmp_path / "in_task" / "checkpoints").iterdir()}

    prune("small", str(tmp_path))
    assert left() == {plain.keys[3], migu.keys[3], trial.keys[1]}, "sequences and trials go on there"
    (trial_plans(str(tmp_path), "small").parent / "chosen.json").touch()
    prune("small", str(tmp_path))
    assert left() == {plain.keys[3], migu.keys[3]}, "no trial does once values were chosen"


@pytest.mark.parametrize("kind", ["experiment", "search"])
def test_an_experiment_that_is_being_run_is_left_alone(kind: str, tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    store = make_states(sequence, 0, 1, 2, 3)
    with store.lock(f"{kind}-small", timeout=0):
        with pytest.raises(UserError, match=f"{kind} 'small' in .* is being run by another process"):
            prune("small", str(tmp_path), keep="none")
        assert prune("small", str(tmp_path), keep="none", dry_run=True)["states"] == 3
    assert states_of(sequence) == [1, 2, 3]


def test_a_sequence_whose_workers_outlived_their_command_is_left_alone(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    make_states(plain, 0, 1, 2, 3)
    make_states(migu, 2, 3)
    with Store(tmp_path).lock(f"sequence-{migu.id}", timeout=0):
        result = prune("small", str(tmp_path), keep="none")
    assert [row["sequence"] for row in result["sequences"]] == [plain.id]
    assert (states_of(plain), states_of(migu)) == ([1], [1, 2, 3])


def test_a_folder_is_named_as_well_as_an_experiment(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1, 2, 3)
    assert prune(str(tmp_path / "experiments" / "small"), "elsewhere")["states"] == 2
    assert states_of(sequence) == [3]


def test_an_unknown_name_is_said(tmp_path: Path) -> None:
    planned(tmp_path, methods=["ft"])
    with pytest.raises(UserError, match=r"no experiment 'smal' in .*: it has small"):
        prune("smal", str(tmp_path))
    (tmp_path / "experiments" / "old" / "search").mkdir(parents=True)
    with pytest.raises(UserError, match=r"old: .* has no plan of a sequence"):
        prune("old", str(tmp_path))


def test_the_table_has_a_line_for_each_sequence(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    make_states(plain, 0, 1, 2, 3)
    output = StringIO()
    print_pruning(prune("small", str(tmp_path), dry_run=True), Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    (line,) = [line.split() for line in lines if plain.id in line]
    # the first state is where the other method begins
    assert line == [plain.id, "3", "1", "2", f"{BYTES}", "B"]
    assert f"1 state, {BYTES} B, would go; every score stays" in lines
    assert migu.id not in output.getvalue(), "it has no state of its own"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (2.96e9, "3.0 GB"), (1.46e12, "1.46 TB")]
)
def test_bytes_are_shown_in_the_unit_that_suits_them(count: float, text: str) -> None:
    assert shown_bytes(int(count)) == text
