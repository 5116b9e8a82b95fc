"""Folders as wholes: made so that they are complete or not there, moved, removed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from orchestrator.storage.places import is_local

if TYPE_CHECKING:
    from orchestrator.storage.objects import ObjectPath


@contextlib.contextmanager
def made_whole(final: Path, is_made: Callable[[], bool]) -> Iterator[Path]:
    """A folder to write into, which is at its place when the block ends; unless another process made it meanwhile.

    Whoever writes puts a file last without which the rest counts for nothing: in an object store the files appear one by one.
    """
    if not is_local(final):
        yield final
        return
    # what a process left that died here: nobody else writes this folder now
    for leftover in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        # if another process made the same after all, its bytes serve as well
        if not is_made():
            unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        cast("ObjectPath", folder).remove_all()


def move_folder(folder: Path, name: str) -> None:
    """Give a folder another name."""
    target = folder.with_name(name)
    if is_local(folder):
        folder.rename(target)
    else:
        cast("ObjectPath", folder).move_all(cast("ObjectPath", target))


@contextlib.contextmanager
def on_disk(file: Path) -> Iterator[Path]:
    """A file, or a copy of an object under the same name, for what reads files of this machine alone."""
    if is_local(file):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(file.read_bytes())
        yield copy


def contents_of(files: Sequence[Path]) -> list[bytes | None]:
    """The contents of some files of one storage; None for one that is not there. Of objects none waits for another."""
    if files and not is_local(files[0]):
        from orchestrator.storage.objects import read_side_by_side

        return read_side_by_side(cast("Sequence[ObjectPath]", files))
    contents: list[bytes | None] = []
    for file in files:
        try:
            contents.append(file.read_bytes())
        except FileNotFoundError:
            contents.append(None)
    return contents
