"""What `--repair` does: damage goes out of the way, and what journals and store know is written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.app import make_console
from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import journal_folder
from orchestrator.store.predictions import load_predictions, predictions_file
from orchestrator.store.scores import score_file
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from orchestrator.verification.mend import mend
from orchestrator.verification.plans import find_planned
from orchestrator.verification.verify import find_damage
from tests.conftest import small_config
from tests.orchestrator.states import make_states, planned


def repair(out: Path) -> list[str]:
    """Mend what is damaged; gives the files that were found so."""
    found = find_planned("small", str(out))
    findings = find_damage(found, make_console(stderr=True))
    mend(found, findings)
    return sorted({str(finding.file.relative_to(out)) for finding in findings})


@pytest.fixture
def trained(tmp_path: Path) -> SequencePlan:
    """One sequence of two tasks, trained and scored."""
    config = small_config(tmp_path, stream={"first": 2})
    experiment = Experiment(config, tuple(plan(config)))
    experiment.save()
    run_sequence(experiment.sequences[0])
    return experiment.sequences[0]


def test_a_journal_is_written_anew_with_what_the_store_knows(trained: SequencePlan) -> None:
    """Without the damaged lines nobody could tell later that something was lost."""
    out = Path(trained.out)
    file = journal_folder(out, trained.id) / "train.jsonl"
    before = recovered_view(trained)
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = list(lines)
    for number in (3, len(lines) - 2, len(lines) - 1):
        damaged[number] = lines[number][:5] + b"\0" + lines[number][6:]
    file.write_bytes(b"".join(damaged))
    assert repair(out) == [str(file.relative_to(out))]
    view = read_view(out, trained.id)
    assert view.damaged == [] and view.is_whole() and view.status == "finished"
    assert view.scores.keys() == before.scores.keys() and len(view.by_task[0].steps) == 3
    (aside,) = file.parent.glob("train.jsonl.damaged-*")
    assert aside.read_bytes() == b"".join(damaged)
    assert repair(out) == []


def test_scores_and_states_come_back_with_the_next_run(trained: SequencePlan) -> None:
    out = Path(trained.out)
    store = Store(out)
    before = read_view(out, trained.id)
    weights = store.path(trained.keys[1]) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4])
    lost, answered = score_file(out, trained.score_keys[1][0]), predictions_file(out, trained.score_keys[2][1])
    record = store.load_score(trained.score_keys[1][0])
    lost.write_bytes(b"")
    answered.write_bytes(b"\x1f\x8bno")
    assert repair(out) == sorted(str(file.relative_to(out)) for file in (weights.parent, lost, answered))
    assert store.load_score(trained.score_keys[1][0]) == record, "the journal has it"
    assert store.load_score(trained.score_keys[2][1]) is None and not weights.exists()
    run_sequence(trained)
    assert weights.read_bytes() == content and load_predictions(out, trained.score_keys[2][1])
    assert read_view(out, trained.id).scores == before.scores
    assert repair(out) == []


def test_the_answers_of_a_state_that_is_gone_go_alone(trained: SequencePlan) -> None:
    out = Path(trained.out)
    store = Store(out)
    store.prune(trained.keys[1])
    key = trained.score_keys[1][0]
    record = store.load_score(key)
    predictions_file(out, key).write_bytes(b"")
    repair(out)
    assert store.load_score(key) == record and load_predictions(out, key) is None


def test_nothing_is_mended_while_a_command_runs(tmp_path: Path) -> None:
    sequence = planned(tmp_path, methods=["ft"])[0]
    store = make_states(sequence, 0, 1)
    score_file(tmp_path, sequence.score_keys[1][0]).write_bytes(b"")
    for name in ("experiment-small", "search-small", f"sequence-{sequence.id}"):
        with store.lock(name, timeout=0), pytest.raises(UserError, match="by another process"):
            repair(tmp_path)
    assert score_file(tmp_path, sequence.score_keys[1][0]).exists()
    repair(tmp_path)
    assert not score_file(tmp_path, sequence.score_keys[1][0]).exists()


def test_who_read_a_test_split_stays_where_a_line_is_damaged(tmp_path: Path) -> None:
    sequence = planned(tmp_path, methods=["ft"])[0]
    log = TestAccessLog(tmp_path)
    (file,) = log.folder.iterdir()
    entries = log.entries()
    file.write_bytes(b"\xff" + file.read_bytes())
    assert repair(tmp_path) == [str(file.relative_to(tmp_path))]
    assert log.entries() == entries[1:] and sequence.id
    assert json.loads(file.read_bytes().splitlines()[0])["crc"]
