"""Locks in an object store: leases, which their holder renews, and which end some time after it no longer does.

A lease is an object that is put on conditions alone: made only where there is none, and changed only as it was last seen.
Whether its holder lives is judged by each waiter for itself: an object that does not change for so many seconds of the waiter's
own clock is nobody's any more. So no two machines need to agree on the time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from orchestrator.errors import StorageFailed
from orchestrator.storage import fence
from orchestrator.storage.objects import ObjectPath

logger = logging.getLogger(__name__)

# A process may be too busy to renew for a while, and a network away
LEASE_SECONDS = 60.0
RENEWAL_SECONDS = 10.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: which process of which machine. `token` is new with each time that it is taken, "" for nobody's.

    `renewals` makes each renewal another content, and so another ETag.
    """

    token: str = ""
    machine: str = ""
    pid: int = 0
    began: int = 0
    renewals: int = 0

    def content(self) -> bytes:
        """It as the object has it."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def read(content: bytes) -> Holder:
        """The holder that an object names; nobody, where it is not readable."""
        try:
            return Holder(**json.loads(content))
        except (ValueError, TypeError):
            return Holder()

    @property
    def is_nobody(self) -> bool:
        """Whether the lease is free."""
        return not self.token

    @property
    def is_neighbour(self) -> bool:
        """Whether it is of this machine, so that one need not wait to know whether it lives."""
        return bool(self.machine) and self.machine == _this_machine()

    def is_running(self) -> bool:
        """Whether a neighbour's process still runs: another one may have its number by now."""
        return self.began == _began(self.pid)


def _this_process() -> Holder:
    return Holder(uuid.uuid4().hex, _this_machine(), os.getpid(), _began(os.getpid()) or 0)


def _began(pid: int) -> int | None:
    """When a process of this machine began, by a count that no change of the clock moves; None where it has ended."""
    try:
        # its name, in brackets, may have spaces
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # one that was killed is still listed until its parent has heard of it
    if fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def _this_machine() -> str:
    """A name for what numbers its processes: this machine since it started, and the container; empty where it has none."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{machine} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


class Lease:
    """A lease that this process holds; a thread renews it until it is given back."""

    def __init__(self, path: ObjectPath, holder: Holder, tag: str, asked: float) -> None:
        self.path = path
        self.holder = holder
        self.tag = tag
        self._ends = threading.Event()
        # counted from when it was asked for: others count from when they see it
        fence.extend(str(path), asked + LEASE_SECONDS)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ends.wait(RENEWAL_SECONDS):
            try:
                self._renew()
            # the store may be back before the lease is over
            except (StorageFailed, OSError) as error:
                logger.warning("a lease could not be renewed: %s", error)

    def _renew(self) -> None:
        asked = time.monotonic()
        holder = replace(self.holder, renewals=self.holder.renewals + 1)
        tag = self.path.put_if(holder.content(), self.tag)
        if tag is None:
            # the answer to a request that was done may have been lost
            present = self.path.tagged()
            if present is None or Holder.read(present[0]).token != holder.token:
                logger.warning("%s was taken by another process, since it was not renewed in time", self.path)
                # from now on nothing is written under it
                fence.extend(str(self.path), float("-inf"))
                self._ends.set()
                return
            tag = present[1]
        self.holder = holder
        self.tag = tag
        fence.extend(str(self.path), asked + LEASE_SECONDS)

    def give_back(self) -> None:
        """End it, so that nobody waits until it is over."""
        self._ends.set()
        self._thread.join()
        fence.let_go(str(self.path))
        # on a condition too, and so not deleted: it may be another's by now
        with contextlib.suppress(StorageFailed):
            self.path.put_if(Holder().content(), self.tag)


class _Watch:
    """What a waiter sees of a lease, by its own clock."""

    def __init__(self) -> None:
        self.tag = ""
        self.since = 0.0
        self.has_changed = False

    def is_over(self, tag: str) -> bool:
        """Whether the lease was as it is now for so long that its holder is taken for gone."""
        if tag != self.tag:
            # the first look says nothing: it may have been left long ago
            self.has_changed = self.tag != ""
            self.tag = tag
            self.since = time.monotonic()
        return time.monotonic() - self.since > LEASE_SECONDS


def take(path: ObjectPath, timeout: float) -> Lease | None:
    """Take a lease; None if another process holds it after `timeout` seconds (-1: wait for ever).

    It is waited for longer where it is not known by then whether its holder lives.
    """
    me = _this_process()
    watch = _Watch()
    asked = time.monotonic()
    deadline = asked + timeout
    tag = path.put_if(me.content(), None)
    while tag is None:
        found = path.tagged()
        content, present_tag = found or (b"", None)
        present = Holder.read(content)
        is_gone = present.is_nobody or (present.is_neighbour and not present.is_running())
        # the answer to a request that was done may have been lost
        if present.token == me.token:
            tag = present_tag
        elif is_gone or (present_tag and watch.is_over(present_tag)):
            asked = time.monotonic()
            tag = path.put_if(me.content(), present_tag)
        elif timeout >= 0 and deadline < time.monotonic() and (present.is_neighbour or watch.has_changed):
            return None
        else:
            time.sleep(POLL_SECONDS)
    return Lease(path, me, tag, asked)


@contextlib.contextmanager
def held(path: Path, timeout: float) -> Iterator[bool]:
    """Be the only holder of a lease meanwhile; gives False if another process still is after `timeout` seconds."""
    lease = take(cast(ObjectPath, path), timeout)
    if lease is None:
        yield False
        return
    try:
        yield True
    finally:
        lease.give_back()
