"""The files from which all others are known: found under a name or a folder, and named where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.retention import note_trial, trial_plans
from orchestrator.verification.findings import Remedy
from orchestrator.verification.plans import damaged_plan_files, find_planned
from tests.orchestrator.search.searches import freeze_and_save, open_search, score_trials, search_config
from tests.orchestrator.states import planned


def damaged(out: Path, run: str = "small") -> list[str]:
    """The names of the plan's files that are found damaged, which all are written anew."""
    findings = list(damaged_plan_files(find_planned(run, str(out))))
    assert {finding.remedy for finding in findings} <= {Remedy.REWRITE}
    return [finding.file.name for finding in findings]


def test_an_experiment_is_found_by_its_name_and_its_folder(tmp_path: Path) -> None:
    sequences = planned(tmp_path)
    for run in ("small", str(tmp_path / "experiments" / "small")):
        found = find_planned(run, str(tmp_path))
        assert [files.sequence.id for files in found.sequences] == [sequence.id for sequence in sequences]
        assert found.out == tmp_path
    with pytest.raises(UserError, match="no experiment 'other'"):
        find_planned("other", str(tmp_path))


@pytest.mark.parametrize("name", ["config.yaml", "sequences.json"])
def test_configuration_and_plan_are_named(tmp_path: Path, name: str) -> None:
    planned(tmp_path)
    file = tmp_path / "experiments" / "small" / name
    sound = file.read_bytes()
    assert damaged(tmp_path) == []
    for damage in (sound[:-30], sound[:40] + b"\0" + sound[41:], b"", b"\xff"):
        file.write_bytes(damage)
        assert damaged(tmp_path) == ["config.yaml"] if name == "config.yaml" else name in damaged(tmp_path)
    file.unlink()
    assert name in damaged(tmp_path)


def test_a_searchs_files_are_named(tmp_path: Path) -> None:
    search, trial_store = open_search(search_config(tmp_path, ["ft"]))
    score_trials(trial_store, {"ft": [41.0, 73.5]})
    for trial in trial_store.trials.values():
        note_trial(str(tmp_path), "small", trial.sequences)
    freeze_and_save(search, trial_store)
    assert damaged(tmp_path) == []
    assert {files.is_over for files in find_planned("small", str(tmp_path)).sequences} == {True}
    for name in ("chosen.json", "search.json", "trials.jsonl", trial_plans("", "").name):
        file = search.folder / name
        sound = file.read_bytes()
        position = sound.index(b"lr")
        file.write_bytes(sound[:position] + b"rl" + sound[position + 2 :])
        assert damaged(tmp_path) == [name]
        file.write_bytes(sound)
