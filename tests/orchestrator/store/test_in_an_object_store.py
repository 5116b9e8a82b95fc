"""The store, its journals and its locks, on a real S3 server: what holds on a disk holds there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.errors import StorageFailed
from orchestrator.storage import fence
from orchestrator.storage.objects import ObjectPath
from orchestrator.storage.places import folder_at
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import MANIFEST, ResumeState, State, Store
from orchestrator.store.journal import Journal, ResumableTail, Tail, ThreadedJournal, journal_folder
from orchestrator.store.predictions import Prediction, load_predictions, save_predictions
from orchestrator.store.records.event import Event
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.store.states.state_files import pack_state
from tests.orchestrator.store.examples import checkpoint, score, step
from tests.orchestrator.store.test_checkpoints import STATE


@pytest.fixture
def store(bucket: str) -> Store:
    return Store(folder_at(f"{bucket}/runs"))


def events_of(folder: Path) -> list[Event]:
    return list(Tail(folder).new_events())


def test_a_state_comes_back(store: Store) -> None:
    assert not store.has("k") and store.all_keys() == []
    state = replace(
        STATE, resume_state=ResumeState({"a.weight": torch.zeros(2, 3)}, {"a.weight": {"m": torch.ones(1)}})
    )
    size = store.save("k", state, {"sequence": "s-1"})
    assert store.has("k") and store.is_sound("k") and store.all_keys() == ["k"]
    assert (store.maker("k"), store.size("k"), store.history("k")) == ("s-1", size, STATE.history)
    loaded = store.load("k", resume_state=True)
    assert torch.equal(loaded.weights["a.weight"], STATE.weights["a.weight"])
    assert torch.equal(loaded.method["0:ewc"]["fisher"]["a.weight"], torch.ones(2))
    assert loaded.resume_state and torch.equal(loaded.resume_state.optimizer_state["a.weight"]["m"], torch.ones(1))
    # nothing was written beside it
    assert [folder.name for folder in (store.root / "checkpoints").iterdir()] == ["k"]


def test_a_state_without_its_manifest_is_not_there_and_is_written_over(store: Store) -> None:
    (store.path("k") / "weights.safetensors").write_bytes(b"of a process that died")
    assert not store.has("k") and store.all_keys() == []
    store.save("k", STATE, {})
    assert store.is_sound("k")
    assert [folder.name for folder in (store.root / "checkpoints").iterdir()] == ["k"]


def test_a_process_that_dies_while_it_writes_leaves_no_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    open_object = ObjectPath.open

    def dies_at_last(path: ObjectPath, mode: str = "r", **options: object) -> object:
        put.append(path.name)
        if path.name == MANIFEST:
            raise KeyboardInterrupt
        return open_object(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "open", dies_at_last)
        with pytest.raises(KeyboardInterrupt):
            store.save("k", STATE, {})
    # all else was there by then
    assert put[-1] == MANIFEST and len(put) == 5
    assert not store.has("k")
    store.save("k", STATE, {})
    assert store.has("k")


def test_a_store_that_fails_is_not_taken_for_a_state_that_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("k", STATE, {})

    def fails(*rest: object, **options: object) -> None:
        raise PermissionError("Access Denied")

    for request in ("cat_file", "cat"):
        monkeypatch.setattr(store.path("k").fs, request, fails)  # type: ignore[attr-defined]
    for look in (store.has, store.is_pruned, store.is_sound, store.load_score):
        with pytest.raises(StorageFailed, match="Access Denied"):
            look("k")


def test_a_damaged_state_is_set_aside_and_made_again(store: Store) -> None:
    store.save("k", STATE, {})
    (store.path("k") / "weights.safetensors").write_bytes(b"damaged")
    assert store.has("k") and not store.is_sound("k")
    store.set_aside("k")
    assert not store.has("k")
    (aside,) = (store.root / "checkpoints").iterdir()
    assert aside.name.startswith("k.corrupt-") and (aside / "weights.safetensors").read_bytes() == b"damaged"
    # an unreadable history too is in the way
    store.save("k", STATE, {})
    (store.path("k") / "history.json").write_bytes(b"{}")
    store.save("k", STATE, {})
    assert store.is_sound("k")


def test_of_a_pruned_state_its_history_stays(store: Store) -> None:
    size = store.save("k", STATE, {})
    freed = store.prune("k")
    assert store.is_pruned("k") and not store.has("k") and store.history("k") == STATE.history
    assert store.size("k") == size > freed > 0
    assert {file.name for file in store.path("k").iterdir()} == {MANIFEST, "history.json"}
    store.save("k", STATE, {})
    assert store.has("k") and not store.is_pruned("k")


def test_a_state_is_stored_as_its_difference_and_made_whole(store: Store) -> None:
    weights = torch.randn(4000)
    base = State({"w": weights}, {}, STATE.history)
    store.save("base", base, {})
    after = State({"w": torch.cat([weights[:3990], weights[3990:] + 1])}, {}, STATE.history)
    store.write("after", pack_state(after), {}, base="base")
    assert store.base_of("after") == "base" and store.is_sound("after")
    assert torch.equal(store.load("after").weights["w"], after.weights["w"])
    store.make_whole("after")
    store.prune("base")
    assert store.base_of("after") is None
    assert torch.equal(store.load("after").weights["w"], after.weights["w"])


def test_scores_and_predictions_come_back(store: Store) -> None:
    assert store.load_score("k") is None and load_predictions(store.root, "k") is None
    store.save_score("k", {"score": 50.0})
    assert store.load_score("k") == {"score": 50.0}
    predictions = [Prediction(0, 1, "a", "b", False, 0.0)]
    save_predictions(store.root, "k", predictions)
    assert load_predictions(store.root, "k") == predictions


def test_one_holder_of_a_lock(store: Store) -> None:
    with store.lock("sequence-s", timeout=0) as first, store.lock("sequence-s", timeout=0) as second:
        assert (first, second) == (True, False)


def test_nothing_is_written_under_a_lock_that_was_lost(store: Store) -> None:
    with store.lock("k", timeout=0):
        fence.extend(str(store.root / "locks" / "k.lock"), float("-inf"))
        with pytest.raises(StorageFailed, match="not renewed in time"):
            store.save("k", STATE, {})
    assert not store.has("k")


def test_a_journal_is_read_as_it_grows(bucket: str) -> None:
    folder = journal_folder(bucket, "s")
    journal, tail = Journal(folder), Tail(folder)
    assert not tail.has_news() and events_of(folder) == []
    first: list[Event] = [step(0, 1), checkpoint(0)]
    journal.append_all(first)
    assert tail.has_news() and list(tail.new_events()) == first and not tail.has_news()
    evaluated = score(1, 0, 50.0)
    Journal(folder, "evaluate").append(evaluated)
    # by another process, whose lines come after those of the one before
    Journal(folder).append(checkpoint(1))
    again = checkpoint(2)
    journal.append(again)
    assert [event.name for event in tail.new_events()] == ["checkpoint", "checkpoint", "score"]
    assert events_of(folder)[-1] == evaluated and len(events_of(folder)) == 5
    assert tail.damaged == []


def test_steps_are_put_together_with_what_comes_after_them(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    write_bytes = ObjectPath.write_bytes
    monkeypatch.setattr(ObjectPath, "write_bytes", lambda path, data: puts.append(path.name) or write_bytes(path, data))
    folder = journal_folder(bucket, "s")
    journal = ThreadedJournal(folder)
    journal.append(checkpoint(0))
    for number in range(1, 100):
        journal.append(step(1, number))
    journal.append(checkpoint(1))
    assert len(events_of(folder)) == 101
    # the first is put on the condition that there is none
    assert puts == ["train.000001.jsonl"]


def test_a_reader_goes_on_where_another_one_stopped(bucket: str) -> None:
    folder = journal_folder(bucket, "s")
    Journal(folder).append(checkpoint(0))
    tail = ResumableTail(folder)
    list(tail.new_events())
    later = ResumableTail(folder)
    assert later.go_on_from(tail.digests())
    assert list(later.new_events()) == [] and [event.name for event in later.old_events()] == ["checkpoint"]
    Journal(folder).append(checkpoint(1))
    (news,) = later.new_events()
    assert json.loads(news.model_dump_json())["task_id"] == 1
    (folder / "train.000001.jsonl").write_bytes(b"of another journal\n")
    assert not ResumableTail(folder).go_on_from(tail.digests())
    (folder / "train.000001.jsonl").unlink()
    assert not ResumableTail(folder).go_on_from(tail.digests())


def test_who_read_a_test_split_is_noted(bucket: str) -> None:
    class Read:
        dataset = "d"
        name = "n"

    log = TestAccessLog(folder_at(bucket))
    for why in ("score", "plan"):
        log.reader("e", "s", why)(Read())  # type: ignore[arg-type]
    assert [entry["why"] for entry in log.entries()] == ["score", "plan"]
    assert len(list((folder_at(bucket) / "test_access").iterdir())) == 1


def test_of_the_states_inside_a_task_the_newest_is_kept(bucket: str) -> None:
    states = InTaskStates(folder_at(bucket), "k")
    assert states.newest() is None
    for number in (10, 20):
        states.write(number, pack_state(replace(STATE, history={"step": number})), {})
    newest = states.newest()
    assert newest is not None and newest.history == {"step": 20}
    assert [folder.name for folder in (folder_at(bucket) / "in_task" / "checkpoints").iterdir()] == ["k-0000000020"]
    (states.store.path("k-0000000020") / "weights.safetensors").write_bytes(b"damaged")
    assert states.newest() is None
    states.write(30, pack_state(STATE), {})
    states.remove()
    assert list(folder_at(bucket).iterdir()) == []
