"""The output folder by its name: a path, or the URI `s3://bucket/prefix` of a place in an object store."""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from orchestrator.errors import UserError, shown

SCHEME = "s3://"
OBJECT_LOOK_SECONDS = 3.0


def folder_at(place: str | Path) -> Path:
    """The folder of that path or URI. What is in an object store is no `Path`, but has the methods of one."""
    if not isinstance(place, str):
        return place
    if not place.startswith(SCHEME):
        return Path(place)
    # imported where it is needed: a run on a disk waits for neither, and need not have them
    from orchestrator.storage.objects import object_path

    return cast(Path, object_path(place))


def is_local(path: Path) -> bool:
    """Whether a path is on a disk."""
    return isinstance(path, Path)


def seconds_between_looks(place: str, on_disk: float, in_store: float = OBJECT_LOOK_SECONDS) -> float:
    """How long to wait before one looks again for what is new; longer where each look is a request that is paid for."""
    return in_store if place.startswith(SCHEME) else on_disk


def resolved(place: str) -> str:
    """The path or URI that means the same in every process, whatever its working directory. Raises UserError."""
    if "://" not in place:
        try:
            full = Path(place).expanduser().resolve()
            # a name that is too long is found by asking for it
            full.exists()
        # a circle of links, NUL, or the home of a user whom nobody knows
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"out: {shown(place)} is no folder: {reason}") from None
        return str(full)
    if not place.startswith(SCHEME):
        raise UserError(f"out: {place!r} is neither a folder nor of the form s3://bucket/prefix")
    bucket, _, prefix = place.removeprefix(SCHEME).partition("/")
    # a journal, a log and a report each say where they are
    if "@" in bucket or "?" in prefix:
        raise UserError(
            "out: credentials and options have no place in a URI; set AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …"
        )
    if not bucket:
        raise UserError(f"out: {place!r} names no bucket; it is of the form s3://bucket/prefix")
    for package in ("s3fs", "upath"):
        if find_spec(package) is None:
            raise UserError(f"out: {place!r} needs s3fs: pip install 'continual-orchestrator[s3]'")
    return str(folder_at(place.rstrip("/")))


def local_folder(place: str) -> Path:
    """The folder on this machine for what is of this machine alone, such as a database: that at `place` itself if it is local.

    Nothing in it is a fact that is nowhere else.
    """
    if not place.startswith(SCHEME):
        return Path(place)
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "continual-orchestrator" / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
