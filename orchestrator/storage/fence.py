"""Until when this process may write into an object store under the leases that it holds.

A process that was stopped for longer than a lease lasts goes on as if nothing had happened, and another one writes the same
objects by then. So each write asks here first.
"""

from __future__ import annotations

import time

from orchestrator.errors import StorageFailed

# by the name of the lease, in seconds of `time.monotonic`
_until: dict[str, float] = {}


def extend(lease: str, until: float) -> None:
    """Note that a lease is held until then."""
    _until[lease] = until


def let_go(lease: str) -> None:
    """Note that nothing is done under a lease any more."""
    _until.pop(lease, None)


def is_over() -> bool:
    """Whether a lease of this process is over, so that what it stood for may be another's."""
    return bool(_ended())


def check() -> None:
    """Raise StorageFailed where a lease of this process is over."""
    for lease in _ended():
        raise StorageFailed(f"{lease}: its lease was not renewed in time, and may be another process's by now")


def _ended() -> list[str]:
    now = time.monotonic()
    # a copy: threads take leases and give them back
    return [lease for lease, until in list(_until.items()) if now > until]
