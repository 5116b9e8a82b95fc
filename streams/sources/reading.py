"""Opening files wherever fsspec finds them, and reading them a line at a time: what sources of files have in common."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

Paths = str | tuple[str, ...]


def listed(paths: Paths) -> tuple[str, ...]:
    """One path or several, as several."""
    if isinstance(paths, str):
        return (paths,)
    return paths


def full_path(path: str) -> str:
    """A path that means the same in every folder."""
    # an address of a remote storage is full as it is
    if "://" in path:
        return path
    try:
        return str(Path(path).expanduser().resolve())
    # what no file can be called: too long, with NUL, of a user whom nobody knows
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path[:80]!r} is no path: {getattr(error, 'strerror', None) or error}") from None


def form_of(path: str) -> str:
    """What a file's name says of its form, without what it says of its compression."""
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_files(task: str, path: str) -> list[Any]:
    """The files of a name, unopened, in alphabetical order. Raises ValueError, naming the task, where there is none."""
    import fsspec

    try:
        found: list[Any] = fsspec.open_files(path, "rb", compression="infer")
        missing = [file for file in found if not file.fs.exists(file.path)]
    # each storage has exceptions of its own: what they have in common is that this path cannot be read
    except Exception as error:
        raise ValueError(f"task {task!r}: cannot read {path!r}: {error}") from error
    if not found or missing:
        raise ValueError(f"task {task!r}: no such file: {path}")
    return found


def name_of(file: Any) -> str:
    """What messages call a file."""
    return str(file.path)


def lines_of(file: Any) -> Iterator[tuple[int, str]]:
    """The lines of a file, each with its number from 1. Raises ValueError where one is not UTF-8, or cannot be unpacked."""
    number = 0
    try:
        with file as stream:
            for line in stream:
                number += 1
                yield number, line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name_of(file)}, line {number}: not UTF-8 text") from None
    # a file that was cut, or is not of the compression that its name says
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name_of(file)}, after line {number}: cannot be read: {error}") from None


def json_row(text: str, where: str) -> dict[str, Any]:
    """A line of JSON as a row. Raises ValueError, saying where, for anything else."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: malformed JSON: {error.msg}") from None
    # a whole number of thousands of digits, or lists within lists within lists
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: malformed JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object with a value for each column, found {type(row).__name__}")
    return row
