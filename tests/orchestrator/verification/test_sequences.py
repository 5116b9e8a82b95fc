"""What is found of a sequence's files, each damaged alone, and what can be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.store.predictions import Prediction, predictions_file, save_predictions
from orchestrator.store.scores import score_file
from orchestrator.verification.findings import Finding, Remedy
from orchestrator.verification.sequences import SequenceFiles
from tests.orchestrator.search.searches import steady, write_scores
from tests.orchestrator.states import make_states, planned


@pytest.fixture
def files(tmp_path: Path) -> SequenceFiles:
    """A sequence with all of its states and scores, whose journal was written by hand."""
    sequence = planned(tmp_path, methods=["ft"])[0]
    make_states(sequence, 0, 1, 2, 3)
    save_predictions(tmp_path, sequence.score_keys[1][0], [Prediction(0, 1, "good", "bad", False, 0.0)])
    # without its last row: what is told of has no steps, and a journal that has ended would lack them
    write_scores(sequence, steady(50.0)[:3])
    return SequenceFiles(sequence)


def found(files: SequenceFiles) -> list[Finding]:
    """All that is found, by a reader that knows nothing yet."""
    files = SequenceFiles(files.sequence, files.is_over)
    findings = list(files.damaged_journal())
    for tasks_seen in range(4):
        findings += [*files.damaged_state(tasks_seen), *files.damaged_scores(tasks_seen)] if tasks_seen else []
    return findings


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "method.safetensors", "method.json", "history.json", "manifest.json"]
)
def test_every_file_of_a_state_is_looked_at(files: SequenceFiles, name: str) -> None:
    assert found(files) == []
    folder = files.store.path(files.sequence.keys[2])
    flip(folder / name)
    assert found(files) == [Finding(folder, "its files are not what was written", Remedy.TRAIN)]
    over = SequenceFiles(files.sequence, is_over=True)
    assert [finding.remedy for finding in over.damaged_state(2)] == [Remedy.UNNEEDED]


def test_what_is_left_of_a_pruned_state_is_looked_at(files: SequenceFiles) -> None:
    key = files.sequence.keys[2]
    files.store.prune(key)
    assert found(files) == []
    flip(files.store.path(key) / "history.json")
    assert [finding.file for finding in found(files)] == [files.store.path(key)]


def test_a_score_is_computed_again_unless_the_journal_has_it(files: SequenceFiles) -> None:
    root = files.store.root
    flip(score_file(root, files.sequence.score_keys[2][1]))
    (finding,) = found(files)
    assert (finding.what, finding.remedy) == ("it is not what was written", Remedy.EVALUATE)
    files.store.prune(files.sequence.keys[2])
    assert [finding.remedy for finding in found(files)] == [Remedy.NONE]
    journal = next((root / "sequences" / files.sequence.id).iterdir())
    key = files.sequence.score_keys[2][1]
    # the helper leaves the key out
    other = SequenceFiles(files.sequence)
    other.view.scores[2, 1] = other.view.scores[2, 1].model_copy(update={"key": key})
    assert [finding.remedy for finding in other.damaged_scores(2)] == [Remedy.FROM_JOURNAL]
    assert json.loads(journal.read_bytes().splitlines()[0])["event"] == "sequence_started"


def test_answers_are_computed_again_with_their_score(files: SequenceFiles) -> None:
    file = predictions_file(files.store.root, files.sequence.score_keys[1][0])
    file.write_bytes(b"cut")
    assert [(finding.file, finding.remedy) for finding in found(files)] == [(file, Remedy.EVALUATE)]


def test_a_journal_that_is_gone_is_missed_by_the_states_that_it_told_of(files: SequenceFiles) -> None:
    folder = files.store.root / "sequences" / files.sequence.id
    for file in folder.iterdir():
        file.unlink()
    assert found(files) == [Finding(folder, "it is missing", Remedy.FROM_STORE)]
