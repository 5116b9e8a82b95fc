"""Nothing is written under a lease that is over."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestrator.errors import StorageFailed
from orchestrator.storage import fence
from orchestrator.storage.objects import object_path


@pytest.fixture(autouse=True)
def _no_lease_left() -> Iterator[None]:
    yield
    fence.let_go("a lease")


def test_a_process_whose_lease_is_over_writes_nothing(bucket: str) -> None:
    file = object_path(f"{bucket}/file")
    fence.extend("a lease", time.monotonic() + 60)
    file.write_bytes(b"1")
    fence.extend("a lease", time.monotonic() - 1)
    for write in (lambda: file.write_bytes(b"2"), file.unlink, lambda: file.open("w"), file.remove_all, file.touch):
        with pytest.raises(StorageFailed, match="a lease: its lease was not renewed in time"):
            write()
    # reading harms nobody
    assert file.read_bytes() == b"1"
    with file.open("rb") as stream:
        assert stream.read() == b"1"
    # nothing is done under it any more
    fence.let_go("a lease")
    file.write_bytes(b"3")
