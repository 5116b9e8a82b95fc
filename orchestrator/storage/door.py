"""What is asked of a storage before anything is computed for it: that it answers, takes what is written, and has locks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import StorageFailed, UserError
from orchestrator.storage.places import SCHEME

if TYPE_CHECKING:
    from orchestrator.storage.objects import ObjectPath

# Who is at the keyboard waits for the answer, and can give the command again
ATTEMPTS = 1


def check_locks(folder: Path) -> None:
    """Raises UserError where a file system has no locks, or only pretends to: two handles get the same one at once."""
    # imported where it is needed, since not every system has it
    import fcntl

    file = folder / f".lock-probe-{uuid.uuid4().hex[:8]}"
    try:
        with file.open("w") as one, file.open("w") as other:
            # what `FileLock` asks for, which would make do with less
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError as error:
        raise UserError(f"out: {str(folder)!r} is on a file system without locks: {error.strerror}") from None
    finally:
        file.unlink(missing_ok=True)
    raise UserError(
        f"out: {str(folder)!r} is on a file system whose locks hold nobody off, so that two runs would train the same; "
        "mount it with locks (NFS: without `nolock`), or take another folder"
    )


def check_answers(out: str) -> None:
    """Raises UserError where an object store does not answer, or not to this user. Of a folder on a disk nothing is asked."""
    if out.startswith(SCHEME):
        with _told():
            _asked_once(out).listed_first()


def check_conditions(out: str) -> None:
    """Raises UserError where an object store takes no objects, or puts them whatever the conditions, on which leases rest."""
    with _told():
        probe = _asked_once(out) / "locks" / f".probe-{uuid.uuid4().hex[:8]}"
        tag = probe.put_if(b"1", None)
        is_refused = tag is not None and probe.put_if(b"2", None) is None
        other_tag = probe.put_if(b"3", tag)
        is_refused = is_refused and other_tag is not None and probe.put_if(b"4", tag) is None
        probe.unlink()
    if not is_refused:
        raise UserError(
            f"out: the store of {out!r} does not heed If-None-Match and If-Match, so that two runs would train the same"
        )


def _asked_once(out: str) -> ObjectPath:
    # imported where it is needed, as in `folder_at`
    from orchestrator.storage.objects import object_path

    return object_path(out, attempts=ATTEMPTS)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StorageFailed as error:
        raise UserError(f"out: {error}") from None
