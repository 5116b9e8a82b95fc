"""Damage that is planted in a finished output folder is found, and named."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import torch

from orchestrator.bench.chaos.compare import compare, compare_copy
from orchestrator.bench.chaos.facts import finished_states, first_step_after, read_facts, repeated_seconds, sequences_of
from orchestrator.bench.chaos.faults import flip_bit
from orchestrator.bench.made_records import BEGIN, Size, make_experiment
from orchestrator.planning.experiment import tracking_uri
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import Step, parse_event
from orchestrator.store.integrity import seal, unseal
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.tracking import MlflowSync

ID = "ft-made-s0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sequence of two tasks of three steps, and its copy in MLflow."""
    out = tmp_path_factory.mktemp("finished")
    experiment = make_experiment(out, Size(sequences=1, tasks=2, steps=3))
    sync = MlflowSync(tracking_uri(experiment.config), "chaos", str(out))
    sync.follow([ID])
    assert sync.close(60), sync.trouble
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def journal(out: Path) -> Path:
    return out / "sequences" / ID / "train.jsonl"


def lines_of(out: Path, kind: str) -> list[bytes]:
    lines = []
    for line in journal(out).read_bytes().splitlines(keepends=True):
        if unseal(line)["event"] == kind:
            lines.append(line)
    return lines


def lose_a_score(out: Path) -> None:
    line = lines_of(out, "score")[-1]
    journal(out).write_bytes(journal(out).read_bytes().replace(line, b""))


def say_a_score_again(out: Path) -> None:
    with journal(out).open("ab") as stream:
        stream.write(lines_of(out, "score")[-1])


def change_a_loss(out: Path) -> None:
    line = lines_of(out, "step")[0]
    changed = seal(unseal(line) | {"loss": 0.5}) + b"\n"
    journal(out).write_bytes(journal(out).read_bytes().replace(line, changed))


def change_weights(out: Path) -> None:
    (first, _) = sequences_of(out)[0].keys[1:]
    flip_bit(out / "checkpoints" / first / "weights.safetensors", Random(0))


def lose_a_state(out: Path) -> None:
    (_, last) = sequences_of(out)[0].keys[1:]
    shutil.rmtree(out / "checkpoints" / last)


def lose_a_stored_score(out: Path) -> None:
    (out / "scores" / f"{sequences_of(out)[0].score_keys[1][0]}.json").unlink()


def in_mlflow(statement: str) -> Callable[[Path], None]:
    def execute(out: Path) -> None:
        with closing(sqlite3.connect(out / "mlflow.db")) as connected:
            assert connected.execute(statement).rowcount == 1
            connected.commit()

    return execute


LEAVE_RUNNING = """UPDATE runs SET status = 'RUNNING' WHERE run_uuid =
    (SELECT run_uuid FROM tags WHERE key = 'orchestrator.task_id' AND value = '-1')"""
LOSE_A_POINT = (
    "DELETE FROM metrics WHERE key = 'loss' AND step = 2 AND timestamp = 1700000000002 AND run_uuid IN {task}"
)
ADD_A_POINT = """INSERT INTO metrics SELECT key, value, timestamp + 5, run_uuid, step, is_nan FROM metrics
    WHERE key = 'loss' AND step = 2 AND run_uuid IN {task}"""
MOVE_A_POINT = "UPDATE metrics SET timestamp = timestamp + 5 WHERE key = 'loss' AND step = 2 AND run_uuid IN {task}"
FIRST_TASK = "(SELECT run_uuid FROM tags WHERE key = 'orchestrator.task_id' AND value = '0')"
LOSE_A_MODEL = "UPDATE logged_models SET lifecycle_stage = 'deleted' WHERE name LIKE '1-%'"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(
            lose_a_score,
            [
                f"lost: journal of {ID}: score on task 1 after 2 tasks",
                f"differs: matrix of {ID}",
                f"differs: status of {ID}",
            ],
            id="a lost score",
        ),
        pytest.param(
            say_a_score_again, [f"doubled: journal of {ID}: score on task 1 after 2 tasks"], id="a doubled line"
        ),
        pytest.param(change_a_loss, [f"differs: journal of {ID}: step 1 of task 0: (0.5, "], id="a changed number"),
        pytest.param(
            change_weights, [f"differs: state of {ID} after task 0: weights.safetensors: "], id="other weights"
        ),
        pytest.param(
            lose_a_state,
            [
                f"lost: state of {ID} after task 1: method.json",
                f"lost: state of {ID} after task 1: method.safetensors",
                f"lost: state of {ID} after task 1: weights.safetensors",
            ],
            id="a lost state",
        ),
        pytest.param(
            lose_a_stored_score, [f"lost: stored score of {ID} on task 0 after 1 tasks"], id="a lost score file"
        ),
        pytest.param(
            in_mlflow(LEAVE_RUNNING),
            [f"differs: MLflow: run of {ID}, task -1: RUNNING for FINISHED"],
            id="a run left RUNNING",
        ),
        pytest.param(
            in_mlflow(LOSE_A_POINT.format(task=FIRST_TASK)),
            [f"lost: MLflow: loss at step 2 of run of {ID}, task 0"],
            id="a lost point",
        ),
        pytest.param(
            in_mlflow(ADD_A_POINT.format(task=FIRST_TASK)),
            [f"doubled: MLflow: loss at step 2 of run of {ID}, task 0"],
            id="a doubled point",
        ),
        pytest.param(in_mlflow(LOSE_A_MODEL), [f"lost: MLflow: model {ID}/0"], id="a lost model"),
    ],
)
def test_what_was_planted_is_found(
    damage: Callable[[Path], None], expected: list[str], finished: Path, copied: Path
) -> None:
    damage(copied)
    found = [str(difference) for difference in compare(read_facts(finished), read_facts(copied))]
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_a_run_that_was_created_twice_is_found(finished: Path, copied: Path) -> None:
    with closing(sqlite3.connect(copied / "mlflow.db")) as connected:
        names = [row[1] for row in connected.execute("PRAGMA table_info(runs)")]
        others = ", ".join(name for name in names if name != "run_uuid")
        connected.execute(f"INSERT INTO runs (run_uuid, {others}) SELECT 'again', {others} FROM runs LIMIT 1")
        (original,) = connected.execute("SELECT run_uuid FROM runs LIMIT 1").fetchone()
        connected.execute("INSERT INTO tags SELECT key, value, 'again' FROM tags WHERE run_uuid = ?", (original,))
        connected.commit()
    (difference,) = compare(read_facts(finished), read_facts(copied))
    assert difference.kind == "doubled"
    assert difference.fact.startswith(f"MLflow: run of {ID}, task ")


def test_a_copy_with_other_times_is_no_copy(copied: Path) -> None:
    assert compare_copy(copied) == []
    in_mlflow(MOVE_A_POINT.format(task=FIRST_TASK))(copied)
    (difference,) = compare_copy(copied)
    assert str(difference).startswith(f"differs: MLflow and journals: time of step 2 of {ID}, task 0: {BEGIN + 7} for ")


@pytest.mark.parametrize("content", [None, b"no database"])
def test_a_copy_that_cannot_be_read_is_lost(content: bytes | None, finished: Path, copied: Path) -> None:
    (copied / "mlflow.db").unlink()
    if content is not None:
        (copied / "mlflow.db").write_bytes(content)
    differences = compare(read_facts(finished), read_facts(copied))
    assert {difference.kind for difference in differences} == {"lost"}
    assert len(differences) == sum(name.startswith("MLflow") for name in read_facts(finished)) > 40
    assert (copied / "mlflow.db").exists() == (content is not None), "asking makes none"


def test_of_a_folder_without_an_experiment_all_is_lost(finished: Path, tmp_path: Path) -> None:
    assert read_facts(tmp_path) == {}
    expected = read_facts(finished)
    assert len(compare(expected, {})) == len(expected)


def test_steps_that_were_trained_again_are_told_by_their_times(tmp_path: Path) -> None:
    """The state's history has steps 2 and 3 of task 0 later than the journal has: 100 ms each."""
    (sequence,) = make_experiment(tmp_path, Size(sequences=1, tasks=2, steps=3)).sequences
    assert repeated_seconds(tmp_path) == 0.0
    store = Store(tmp_path)
    steps = []
    for number, later in ((1, 0), (2, 100), (3, 200)):
        step = Step(
            time=BEGIN + number + later, task_id=0, step=number, loss=1.0, lr=0.1, grad_norm=1.0, tokens_per_s=1.0
        )
        steps.append(step.to_json())
    key = sequence.keys[1]
    shutil.rmtree(store.path(key))
    history = {"seconds": 1.0, "steps": steps, "usage": {}, "diagnostics": {}}
    store.save(key, State({"weight": torch.zeros(1)}, {}, history), {"sequence": sequence.id})
    assert repeated_seconds(tmp_path) == pytest.approx(2 * 0.101)
    shutil.rmtree(store.path(key))
    store.save(key, State({"weight": torch.zeros(1)}, {}, history), {"sequence": "another"})
    assert repeated_seconds(tmp_path) == 0.0, "what another sequence trained"


def test_a_repeated_step_is_not_the_first_new_one(tmp_path: Path) -> None:
    (sequence,) = make_experiment(tmp_path, Size(sequences=1, tasks=1, steps=2)).sequences
    began = BEGIN / 1000 + 1
    assert first_step_after(tmp_path, began, of_new_start=False) is None
    known = Step(time=BEGIN + 5000, task_id=0, step=2, loss=1.0, lr=0.1, grad_norm=1.0, tokens_per_s=1.0)
    new = known.model_copy(update={"step": 3, "time": BEGIN + 7000})
    records = Journal(journal_folder(tmp_path, sequence.id))
    records.append_all([known, new])
    assert first_step_after(tmp_path, began, of_new_start=False) == BEGIN / 1000 + 7
    # by workers that outlived their driver
    assert first_step_after(tmp_path, began, of_new_start=True) is None
    (start, *_) = lines_of(tmp_path, "sequence_started")
    again = parse_event(unseal(start) | {"time": BEGIN + 8000})
    records.append_all([again, new.model_copy(update={"step": 4, "time": BEGIN + 9000})])
    assert first_step_after(tmp_path, began, of_new_start=True) == BEGIN / 1000 + 9


def test_a_state_that_was_made_again_has_another_time(copied: Path) -> None:
    before = finished_states(copied)
    assert len(before) == 2
    (key, *_) = before
    os.utime(copied / "checkpoints" / key / "manifest.json", ns=(1, 1))
    after = finished_states(copied)
    assert [name for name in before if before[name] != after[name]] == [key]
