"""Recovery: whatever happens to a journal, no number changes, nothing is called finished that is not, and a run mends it."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.scores import score_events
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.results import results
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ScoreComputed
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.scores import score_file
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

Damage = tuple[str, dict[str, bytes]]


class Finished:
    """A sequence of two tasks that is finished, with its scores in a journal of their own, as a cluster writes them."""

    def __init__(self, sequence: SequencePlan, out: Path) -> None:
        self.sequence, self.folder = sequence, journal_folder(sequence.out, sequence.id)
        self.experiment = Experiment(small_config(out), (sequence,))
        run_sequence(sequence)
        # the journal as a cluster writes it: training without scores, and the scores by another writer
        shutil.rmtree(self.folder)
        run_sequence(sequence, evaluate=False)
        scoring = Journal(self.folder, "evaluate")
        for tasks_seen in range(3):
            for event in score_events(sequence, tasks_seen, Store(Path(sequence.out))):
                scoring.append(event)
        self.files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.expected = self.result()

    def result(self) -> dict[str, Any]:
        """What the report says, without what a damage is free to change."""
        (entry,) = results(self.experiment)["sequences"]
        return entry

    def write(self, files: dict[str, bytes]) -> None:
        """Put the journal's files there, and no others."""
        for file in self.folder.iterdir():
            file.unlink()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    from orchestrator.planning.planner import plan

    out = tmp_path_factory.mktemp("recovery")
    (sequence,) = plan(small_config(out, stream={"first": 2}))
    return Finished(sequence, out)


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of runs need not each ask git for the commit."""
    monkeypatch.setattr("orchestrator.store.environment.git_commit", lambda: None)


def flipped_bits(files: dict[str, bytes], count: int) -> Iterator[Damage]:
    """Single flipped bits, spread over all files."""
    rng = random.Random(5)
    names = sorted(files)
    for _ in range(count):
        name = rng.choices(names, [len(files[n]) for n in names])[0]
        content = bytearray(files[name])
        position, bit = rng.randrange(len(content)), rng.randrange(8)
        content[position] ^= 1 << bit
        yield f"bit {bit} of byte {position} of {name}", {**files, name: bytes(content)}


def other_damages(files: dict[str, bytes]) -> Iterator[Damage]:
    """Cuts, tails of NUL bytes, bytes that are no text, lines that are gone, files that are gone."""
    rng = random.Random(6)
    for name, content in files.items():
        for _ in range(8):
            cut = rng.randrange(len(content))
            yield f"{name} cut at {cut}", {**files, name: content[:cut]}
            yield f"{name} zero from {cut}", {**files, name: content[:cut] + b"\0" * (len(content) - cut)}
            yield f"{name} latin-1 at {cut}", {**files, name: content[:cut] + b"\xe9\xff" + content[cut:]}
        yield f"{name} with a tail of NUL", {**files, name: content + b"\0" * 512}
        lines = content.splitlines(keepends=True)
        for number in range(len(lines)):
            yield f"{name} without line {number}", {**files, name: b"".join(lines[:number] + lines[number + 1 :])}
        yield f"no {name}", {n: c for n, c in files.items() if n != name}


def assert_nothing_wrong(shown: Any, expected: Any, path: str) -> None:
    """Every value that is shown is the undamaged one, or not known."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_nothing_wrong(shown[key], value, f"{path}.{key}")
    elif isinstance(expected, list) and shown is not None:
        for index, value in enumerate(expected):
            assert_nothing_wrong(shown[index], value, f"{path}[{index}]")
    else:
        assert shown is None or shown == expected, (path, shown, expected)


def check(finished: Finished, damage: str, files: dict[str, bytes]) -> str:
    """The report after a damage, and after the next run; gives what the report said of the sequence."""
    finished.write(files)
    shown = finished.result()
    status = shown.pop("status")
    # a count of statuses, which follows the status
    del shown["runs_finished"]
    sizes_and_cost = {key: shown.pop(key) for key in ("seconds", "steps", "tokens", "flops")}
    assert_nothing_wrong(shown, {k: v for k, v in finished.expected.items() if k in shown}, damage)
    missing = any(score is None for scores in shown["accuracy_matrix"] for score in scores)
    assert status in ("finished", "incomplete", "running", "waiting"), damage
    if status == "finished":
        assert not missing, damage
        assert_nothing_wrong(sizes_and_cost, {k: finished.expected[k] for k in sizes_and_cost}, damage)
    before = {file.name: file.read_bytes() for file in finished.folder.iterdir()}
    assert before == files, "a report writes nothing"
    view = run_sequence(finished.sequence)
    assert view.status == "finished", damage
    assert view.is_whole(), damage
    for task in view.by_task.values():
        assert task.checkpoint
        assert not task.checkpoint.reused, f"{damage}: the sequence trained it itself"
    assert finished.result() == finished.expected, damage
    return str(status)


@pytest.mark.parametrize("count", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_flipped_bits(finished: Finished, count: int) -> None:
    said = Counter(check(finished, damage, files) for damage, files in flipped_bits(finished.files, count))
    print(dict(said))
    # all that a bit can take is in the store or follows from it, so the report itself has every number
    assert said["finished"] == count


def test_the_last_line_of_a_journal_is_not_missed(finished: Finished) -> None:
    lines = finished.files["train.jsonl"].splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "sequence_finished"
    for last in (lines[-1].replace(b"finished", b"vanished"), lines[-1].rstrip(b"\n"), b""):
        finished.write({**finished.files, "train.jsonl": b"".join([*lines[:-1], last])})
        assert recovered_view(finished.sequence).status == "finished"


def test_cuts_tails_and_lost_lines(finished: Finished) -> None:
    said = Counter(check(finished, damage, files) for damage, files in other_damages(finished.files))
    print(dict(said))
    assert said["finished"] > said.total() / 2


def test_a_line_that_is_damaged_is_counted_and_its_score_recovered(finished: Finished) -> None:
    lines = finished.files["evaluate.jsonl"].splitlines(keepends=True)
    assert json.loads(lines[2])["event"] == "score"
    lines[2] = lines[2].replace(b'"score": ', b'"score": 1')
    finished.write({**finished.files, "evaluate.jsonl": b"".join(lines)})
    plain = read_view(finished.sequence.out, finished.sequence.id)
    assert plain.status == "incomplete"
    assert [(line.file.name, line.number) for line in plain.damaged] == [("evaluate.jsonl", 3)]
    line = results(finished.experiment)["damaged_lines"]
    assert line.startswith("1 damaged line(s)")
    assert line.endswith("evaluate.jsonl:3: its checksum does not match")
    recovered = recovered_view(finished.sequence)
    assert recovered.status == "finished"
    assert recovered.damaged == plain.damaged


def test_a_score_that_the_store_lost_too_is_missing_and_computed_again(finished: Finished) -> None:
    lines = finished.files["evaluate.jsonl"].splitlines(keepends=True)
    key = json.loads(lines[2])["key"]
    finished.write({**finished.files, "evaluate.jsonl": b"".join(lines[:2] + lines[3:])})
    for damage in (None, b"", b'{"score": 1'):
        file = score_file(Path(finished.sequence.out), key)
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        view = recovered_view(finished.sequence)
        assert (view.status, len(view.scores)) == ("incomplete", 5)
        finished.write(finished.files)
        seen: list[Event] = []
        run_sequence(finished.sequence, seen.append)
        assert not any(isinstance(event, ScoreComputed) for event in seen), "the journal has it"
        assert finished.result() == finished.expected
        finished.write({**finished.files, "evaluate.jsonl": b"".join(lines[:2] + lines[3:])})


def test_what_others_put_into_the_store_is_not_taken_for_this_sequences(finished: Finished) -> None:
    finished.write({})
    assert recovered_view(finished.sequence).status == "waiting"
    lines = finished.files["train.jsonl"].splitlines(keepends=True)
    finished.write({"train.jsonl": lines[0]})
    view = recovered_view(finished.sequence)
    assert (view.status, view.by_task, view.scores) == ("running", {}, {})


def test_how_a_pruned_state_was_trained_is_recovered_too(tmp_path: Path) -> None:
    from orchestrator.planning.planner import plan

    (sequence,) = plan(small_config(tmp_path, stream={"first": 2}))
    run_sequence(sequence)
    before = recovered_view(sequence)
    store = Store(tmp_path)
    for key in sequence.keys[1:]:
        store.prune(key)
    (file,) = journal_folder(sequence.out, sequence.id).iterdir()
    kept = [line for line in file.read_text().splitlines() if '"checkpoint"' not in line and '"step"' not in line]
    # the first line too: a journal without it has lost more
    file.write_text("\n".join(kept[1:]) + "\n")
    view = recovered_view(sequence)
    assert view.is_whole() and view.status == "finished"
    assert [len(task.steps) for task in view.by_task.values()] == [3, 3]
    assert (view.seconds, view.usage("tokens")) == (before.seconds, before.usage("tokens"))
