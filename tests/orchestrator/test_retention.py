"""What stays on the disk: what is needed still, by whomever, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.running import Keep
from orchestrator.errors import UserError
from orchestrator.evaluation.columns import is_complete
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.retention import (
    Group,
    Retention,
    carry_out,
    note_trial,
    other_groups,
    plan_pruning,
    planned_groups,
    reopen_trials,
    states_to_make_again,
    trial_plans,
)
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.states.state_files import pack_state
from orchestrator.store.view import read_view
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.states import HISTORY, make_scores, make_states, planned, states_of
from tests.orchestrator.training.helpers import equal, folder_with, stored, trained


def prune(keep: Keep, *sequences: SequencePlan, **changes: Any) -> list[list[int]]:
    """Prune sequences of one experiment; the states of each that are there afterwards."""
    store = Store(Path(sequences[0].out))
    carry_out(plan_pruning(store, [Group(keep, sequences, **changes)]), store)
    return [states_of(sequence) for sequence in sequences]


@pytest.mark.parametrize(("keep", "stay"), [("all", [1, 2, 3]), ("last", [3]), ("none", [])])
def test_what_stays_of_a_sequence_that_is_through(keep: Keep, stay: list[int], tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1, 2, 3)
    assert prune(keep, sequence) == [stay]
    assert prune(keep, sequence) == [stay], "once more changes nothing"
    assert is_complete(sequence, Store(tmp_path))


def test_the_state_before_stays_until_the_next_one_is_scored(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1)
    make_states(sequence, 2, scored=False)
    assert prune("none", sequence) == [[1, 2]]
    make_scores(sequence, 2)
    assert prune("none", sequence) == [[2]]
    # the initial model's scores need no state
    (other,) = planned(tmp_path / "other", methods=["ft"])
    make_states(other, 1, 2, 3)
    assert prune("none", other) == [[3]], "it is not through while a score of it is missing"


def test_a_state_without_scores_stays_however_old_it_is(tmp_path: Path) -> None:
    """Scores may be computed beside training, later than the states after."""
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 2)
    make_states(sequence, 1, scored=False)
    assert prune("none", sequence) == [[1, 2]]


def test_what_another_sequence_begins_with_stays_until_it_has_gone_on(tmp_path: Path) -> None:
    plain, migu = planned(tmp_path)
    assert plain.keys[1] == migu.keys[1] and plain.keys[2] != migu.keys[2]
    make_states(plain, 0, 1, 2, 3)
    assert prune("none", plain, migu) == [[1], [1]]
    make_states(migu, 2)
    assert prune("none", plain, migu) == [[], [2]]


def test_another_experiment_keeps_what_it_shares(tmp_path: Path) -> None:
    (own, _) = planned(tmp_path, "own")
    make_states(own, 0, 1, 2, 3)
    planned(tmp_path, "thrifty", ["ft+migu"], checkpoints={"keep": "none"})
    store = Store(tmp_path)
    groups = [Group("none", (own,))]

    def kept() -> dict[str, str]:
        return plan_pruning(store, groups, other_groups(str(tmp_path), "own")).kept_for_others

    assert kept() == {own.keys[1]: "thrifty"}, "it goes on from there"
    (same,) = planned(tmp_path, "same", ["ft"])
    assert kept() == dict.fromkeys(same.keys[1:], "same") | {own.keys[1]: "thrifty"}
    pruning = plan_pruning(store, groups, other_groups(str(tmp_path), "own"))
    assert pruning.bytes_to_free == {}
    assert carry_out(pruning, store) == 0


def test_a_state_whose_lock_is_held_stays(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    store = make_states(sequence, 0, 1, 2, 3)
    with store.lock(sequence.keys[2], timeout=0):
        assert prune("none", sequence) == [[2]]


def test_what_would_go_is_what_goes(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    store = make_states(sequence, 0, 1, 2, 3)
    pruning = plan_pruning(store, [Group("last", (sequence,))])
    before = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("*.safetensors"))
    freed = carry_out(pruning, store)
    after = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("*.safetensors"))
    # method.json has the two bytes of {}
    assert freed == sum(pruning.bytes_to_free.values()) == before - after + 2 * 2
    assert set(pruning.bytes_to_free) == set(sequence.keys[1:3])


def test_what_stays_is_made_whole_before_what_it_differs_from_goes(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    store = Store(tmp_path)
    weights = []
    for tasks_seen in range(4):
        make_scores(sequence, tasks_seen)
        weights.append({"w": torch.linspace(1.0, 2.0, 2000) * (1 + 1e-6 * tasks_seen)})
        if tasks_seen > 0:
            base = sequence.keys[tasks_seen - 1] if tasks_seen > 1 else None
            store.write(sequence.keys[tasks_seen], pack_state(State(weights[-1], {}, HISTORY)), {}, base)
    assert store.links(sequence.keys[3]) == 2
    pruning = plan_pruning(store, [Group("last", (sequence,))])
    assert pruning.grows == {sequence.keys[3]: store.growth_of(sequence.keys[3])}
    with store.lock(sequence.keys[3], timeout=0):
        assert carry_out(pruning, store) == 0
    assert states_of(sequence) == [1, 2, 3], "of what cannot be made whole now, nothing goes"
    before = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("weights*"))
    assert carry_out(pruning, store) == pruning.net_bytes
    after = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("weights*"))
    # each of the two that went had an empty method state beside its weights: 16 and 2 bytes
    assert pruning.net_bytes == before - after + 2 * 18
    assert states_of(sequence) == [3]
    assert equal(dict(store.load(sequence.keys[3]).weights), weights[3])
    assert prune("none", sequence) == [[]]


def test_a_chain_of_differences_goes_from_its_end(tmp_path: Path) -> None:
    """Else what is left of it would be no state, and never be removed."""
    (sequence,) = planned(tmp_path, methods=["ft"])
    store = Store(tmp_path)
    make_scores(sequence, 0)
    for tasks_seen in (1, 2, 3):
        make_scores(sequence, tasks_seen)
        packed = pack_state(State({"w": torch.arange(2000.0) + tasks_seen}, {}, HISTORY))
        store.write(sequence.keys[tasks_seen], packed, {}, sequence.keys[tasks_seen - 1] if tasks_seen > 1 else None)
    assert store.links(sequence.keys[3]) == 2
    assert prune("none", sequence) == [[]]
    assert list((tmp_path / "checkpoints").rglob("weights*")) == []


# Runs after a pruning


def test_a_run_of_differences_equals_one_of_whole_states(sequence_of: Callable[..., SequencePlan]) -> None:
    whole = sequence_of("whole", stream={"first": 3})
    small = sequence_of("small", stream={"first": 3}, checkpoints={"delta": True})
    assert whole.keys == small.keys, "how a state is stored is no part of its name"
    run_sequence(whole)
    run_sequence(small, until=2)
    run_sequence(small)
    store = Store(Path(small.out))
    assert [store.base_of(key) for key in small.keys[1:]] == [None, *small.keys[1:3]]
    for tasks_seen in (1, 2, 3):
        assert equal(stored(whole, tasks_seen).weights, stored(small, tasks_seen).weights)


@pytest.mark.parametrize("keep", ["last", "none"])
def test_the_same_command_finds_its_scores_and_trains_nothing(
    keep: Keep, sequence_of: Callable[..., SequencePlan]
) -> None:
    sequence = sequence_of(stream={"first": 3})
    run_sequence(sequence)
    prune(keep, sequence)
    assert is_complete(sequence, Store(Path(sequence.out)))
    # with a journal of its own, which knows nothing yet
    again = sequence.model_copy(update={"id": "again"})
    before = read_view(sequence.out, sequence.id)
    view = run_sequence(again)
    assert trained(sequence) == []
    assert states_of(sequence) == ([3] if keep == "last" else [])
    assert view.status == "finished" and view.is_whole()
    for task_id, task in before.by_task.items():
        assert view.by_task[task_id].steps == task.steps
        found, made = view.by_task[task_id].checkpoint, task.checkpoint
        assert found and made and (found.bytes, found.usage, found.reused) == (made.bytes, made.usage, True)


@pytest.mark.parametrize(("keep", "expected"), [("last", ["third"]), ("none", ["first", "second", "third"])])
def test_a_longer_stream_trains_again_what_it_needs(
    keep: Keep, expected: list[str], sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    short = sequence_of(stream=folder_with(tmp_path, ["first", "second"]))
    longer = sequence_of(stream=folder_with(tmp_path, ["first", "second", "third"]))
    whole = sequence_of("whole", stream=folder_with(tmp_path, ["first", "second", "third"]))
    run_sequence(whole)
    run_sequence(short)
    prune(keep, short)
    # another stream has other labels, so its scores are its own
    for tasks_seen in (1, 2):
        make_scores(longer, tasks_seen)
    assert states_to_make_again([longer], Store(Path(short.out))) == len(expected) - 1
    made: list[str] = []
    train = run_sequence.__globals__["train_task"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "orchestrator.training.sequence.train_task",
            lambda learner, task_id, *more: (
                made.append(learner.sequence.tasks[task_id]) or train(learner, task_id, *more)
            ),
        )
        view = run_sequence(longer)
    assert made == expected
    assert view.status == "finished"
    assert equal(stored(longer, 3).weights, stored(whole, 3).weights)


def test_a_pruned_state_that_lacks_a_score_is_trained_again(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    run_sequence(sequence)
    prune("none", sequence)
    lost = sequence.score_keys[2][0]
    (Path(sequence.out) / "scores" / f"{lost}.json").unlink()
    store = Store(Path(sequence.out))
    assert not is_complete(sequence, store)
    assert states_to_make_again([sequence], store) == 2
    # whoever computes the score, it needs the state
    run_sequence(sequence, evaluate=False)
    assert states_of(sequence) == [1, 2]
    run_sequence(sequence)
    assert is_complete(sequence, store)
    assert states_to_make_again([sequence], store) == 0


# What was planned


def test_trials_keep_their_first_state_until_the_search_has_chosen(tmp_path: Path) -> None:
    """The next trial may begin with the same task."""
    first, stopped = planned(tmp_path / "elsewhere")
    first, stopped = (sequence.model_copy(update={"out": str(tmp_path)}) for sequence in (first, stopped))
    make_states(first, 0, 1, 2, 3)
    make_states(stopped, 2)
    note_trial(str(tmp_path), "search", [first])
    note_trial(str(tmp_path), "search", [first, stopped])
    folder = tmp_path / "experiments" / "search"
    (group,) = planned_groups(folder, "none")
    assert group == Group("none", (first, stopped), are_over=False, keeps_first=True), "each is noted once"
    Retention(str(tmp_path), "search", "none").prune()
    assert (states_of(first), states_of(stopped)) == ([1], [1, 2])
    choice = folder / "search" / "chosen.json"
    choice.write_text("{}")
    later = trial_plans(str(tmp_path), "search").stat().st_mtime_ns + 10**6
    os.utime(choice, ns=(later, later))
    Retention(str(tmp_path), "search", "last").prune()
    assert (states_of(first), states_of(stopped)) == ([], [2]), "the last state of a trial that was stopped"
    os.utime(choice, ns=(later - 10**9, later - 10**9))
    reopen_trials(str(tmp_path), "search")
    assert planned_groups(folder, "none")[0].keeps_first
    os.utime(choice, ns=(later + 10**12, later + 10**12))
    Retention(str(tmp_path), "search", "none").prune()
    assert (states_of(first), states_of(stopped)) == ([], [])


def test_half_a_line_of_a_process_that_died_hides_no_other(tmp_path: Path) -> None:
    first, second = planned(tmp_path)
    note_trial(str(tmp_path), "search", [first])
    with trial_plans(str(tmp_path), "search").open("a") as stream:
        stream.write('\n{"id": "half')
    note_trial(str(tmp_path), "search", [second])
    (group,) = planned_groups(tmp_path / "experiments" / "search", "none")
    assert [sequence.id for sequence in group.sequences] == [first.id, second.id]


def test_a_trials_plan_that_is_damaged_is_noted_again(tmp_path: Path) -> None:
    """Read as it stands, it would say that other states are needed. One of before plans were sealed is read."""
    first, second = planned(tmp_path)
    note_trial(str(tmp_path), "search", [first, second])
    file = trial_plans(str(tmp_path), "search")
    file.write_bytes(file.read_bytes().replace(first.keys[1].encode(), first.keys[1][::-1].encode(), 1))
    folder = tmp_path / "experiments" / "search"
    assert [sequence.id for sequence in planned_groups(folder)[0].sequences] == [second.id]
    note_trial(str(tmp_path), "search", [first, second])
    assert [sequence.id for sequence in planned_groups(folder)[0].sequences] == [second.id, first.id]
    file.write_text("\n" + json.dumps(first.model_dump(mode="json")))
    assert [sequence.id for sequence in planned_groups(folder)[0].sequences] == [first.id]


def test_where_a_plan_cannot_be_read_nothing_goes(tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1, 2, 3)
    other = tmp_path / "experiments" / "other"
    other.mkdir()
    (other / "sequences.json").write_text('[{"id": 3}]')
    with pytest.raises(UserError, match=r"other/sequences.json: cannot be read, so nobody knows which states it needs"):
        list(other_groups(str(tmp_path), "small"))
    assert Retention(str(tmp_path), "small", "none").prune() == 0
    assert states_of(sequence) == [1, 2, 3]
    (other / "sequences.json").write_text("[]")
    assert Retention(str(tmp_path), "small", "none").prune() > 0
    assert states_of(sequence) == []


def test_a_plan_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    planned(tmp_path, methods=["ft"])
    folder = tmp_path / "experiments" / "small"
    assert len(planned_groups(folder)[0].sequences) == 1
    planned(tmp_path)
    assert len(planned_groups(folder)[0].sequences) == 2
    assert planned_groups(folder)[0].keep == "all"
    planned(tmp_path, checkpoints={"keep": "last"})
    assert planned_groups(folder)[0].keep == "last"
    assert json.loads((folder / "sequences.json").read_text())


def test_a_look_comes_to_nothing_so_soon_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1, 2, 3)
    retention = Retention(str(tmp_path), "small", "none")
    retention.look()
    assert states_of(sequence) == [1, 2, 3]
    monkeypatch.setattr("orchestrator.retention.SECONDS_BETWEEN_LOOKS", -1.0)
    retention.look()
    assert states_of(sequence) == []
