"""Leases, on a real server: one holder at a time, whoever dies, stands still or loses an answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator.errors import StorageFailed
from orchestrator.storage import fence, leases
from orchestrator.storage.leases import Holder, held, take
from orchestrator.storage.objects import ObjectPath, object_path
from orchestrator.storage.places import folder_at

LEASE_SECONDS = 1.5
ROOT = Path(__file__).parents[3]


@pytest.fixture
def lock(bucket: str) -> ObjectPath:
    return object_path(f"{bucket}/locks") / "k.lock"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a second or two, so that no test waits for minutes."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr(leases, "RENEWAL_SECONDS", 0.2)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.05)


def other_machines(renewals: int = 0) -> bytes:
    """What a holder on another machine has put."""
    return Holder("token", "another machine", 1, 0, renewals).content()


def renewals_of(lock: ObjectPath) -> int:
    return Holder.read(lock.read_bytes()).renewals


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so; not for ever."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.05)


@pytest.fixture
def living(lock: ObjectPath) -> Iterator[None]:
    """A holder on another machine that renews its lease."""
    ends = threading.Event()

    def renew() -> None:
        renewals = 0
        while not ends.wait(0.2):
            renewals += 1
            lock.write_bytes(other_machines(renewals))

    lock.write_bytes(other_machines())
    thread = threading.Thread(target=renew)
    thread.start()
    yield
    ends.set()
    thread.join()


def test_one_holder_at_a_time(lock: ObjectPath) -> None:
    path = folder_at(str(lock))
    with held(path, 0) as first:
        began = time.monotonic()
        with held(path, 0) as second, held(path.with_name("other.lock"), 0) as other:
            assert (first, second, other) == (True, False, True)
        # of a process of this machine one knows at once that it lives
        assert time.monotonic() - began < LEASE_SECONDS
    began = time.monotonic()
    with held(path, 0) as again:
        assert again
    # what was given back is not waited for
    assert time.monotonic() - began < LEASE_SECONDS


def test_a_lease_is_held_for_longer_than_it_lasts_unrenewed(lock: ObjectPath) -> None:
    lease = take(lock, 0)
    assert lease is not None
    until = fence._until[str(lock)]
    wait_for(lambda: renewals_of(lock) >= 2)
    # its holder may write for longer than without
    assert fence._until[str(lock)] > until
    lease.give_back()
    assert str(lock) not in fence._until and Holder.read(lock.read_bytes()).is_nobody


def test_of_many_that_come_at_once_one_gets_it(lock: ObjectPath) -> None:
    lock.write_bytes(Holder().content())
    taken: list[bool] = []
    all_there = threading.Barrier(6)

    def try_it() -> None:
        with held(folder_at(str(lock)), 0) as is_mine:
            taken.append(is_mine)
            all_there.wait(timeout=20)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 5 + [True]


def test_the_lease_of_another_machine_that_is_silent_is_taken_over(
    lock: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.6)
    lock.write_bytes(other_machines())
    began = time.monotonic()
    with held(folder_at(str(lock)), 0) as is_mine:
        assert is_mine
    # not before it was seen unchanged for as long as a lease lasts, however old it is: clocks are not compared
    assert time.monotonic() - began >= 0.6


@pytest.mark.usefixtures("living")
def test_the_lease_of_another_machine_that_lives_is_not(lock: ObjectPath) -> None:
    with held(folder_at(str(lock)), LEASE_SECONDS + 0.3) as is_mine:
        assert not is_mine
    began = time.monotonic()
    with held(folder_at(str(lock)), 0) as is_mine:
        assert not is_mine
    # as soon as it was seen to change
    assert time.monotonic() - began < LEASE_SECONDS


def test_the_lease_of_a_process_that_was_killed_on_this_machine_is_free_at_once(lock: ObjectPath) -> None:
    code = (
        "import sys, time; from orchestrator.storage.leases import take; from orchestrator.storage.objects import object_path\n"
        f"take(object_path({str(lock)!r}), 0); print('taken', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout and holder.stdout.readline() == "taken\n"
        with held(folder_at(str(lock)), 0) as is_mine:
            assert not is_mine
    finally:
        holder.send_signal(signal.SIGKILL)
    # its parent, this process, has not asked for its end yet
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    began = time.monotonic()
    with held(folder_at(str(lock)), 0) as is_mine:
        assert is_mine
    assert time.monotonic() - began < LEASE_SECONDS
    holder.wait()


def test_a_process_that_has_the_number_of_one_that_ended_is_another(lock: ObjectPath) -> None:
    me = leases._this_process()
    assert me.is_neighbour and me.is_running()
    holder = replace(me, began=me.began - 5)
    assert holder.is_neighbour and not holder.is_running()
    lock.write_bytes(holder.content())
    with held(folder_at(str(lock)), 0) as is_mine:
        assert is_mine


def test_who_slept_past_the_end_of_its_lease_writes_nothing_more(
    lock: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lock.with_name("file")
    # as where the process is stopped: nobody renews
    monkeypatch.setattr(leases, "RENEWAL_SECONDS", 100.0)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.3)
    with held(folder_at(str(lock)), 0) as is_mine:
        assert is_mine
        time.sleep(0.4)
        with pytest.raises(StorageFailed, match="its lease was not renewed in time"):
            file.write_bytes(b"late")
    assert not file.exists()


def test_a_lease_that_was_taken_over_is_noticed_and_stays_the_others(lock: ObjectPath) -> None:
    with held(folder_at(str(lock)), 0) as is_mine:
        assert is_mine
        lock.write_bytes(other_machines())
        wait_for(lambda: fence._until[str(lock)] < 0)
        with pytest.raises(StorageFailed, match="not renewed in time"):
            lock.with_name("file").write_bytes(b"late")
    assert lock.read_bytes() == other_machines()


def test_a_lost_answer_loses_no_lease(lock: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    put_if = ObjectPath.put_if

    def lost(path: ObjectPath, content: bytes, tag: str | None) -> None:
        """The store does it; the answer does not come, and asked again it says that the condition no longer holds."""
        put_if(path, content, tag)

    monkeypatch.setattr(ObjectPath, "put_if", lost)
    lease = take(lock, 0)
    assert lease is not None
    until = fence._until[str(lock)]
    # and so with each renewal
    wait_for(lambda: renewals_of(lock) >= 2)
    assert fence._until[str(lock)] > until
    lease.give_back()


def test_a_lease_that_cannot_be_read_is_nobodys(lock: ObjectPath) -> None:
    for content in (b"", b"\xff", b"[]", json.dumps({**asdict(Holder("t")), "more": 1}).encode()):
        lock.write_bytes(content)
        with held(folder_at(str(lock)), 0) as is_mine:
            assert is_mine
