"""The sqlite file of an MLflow store: it appears whole or not at all, and one that is broken gives way to a new one.

MLflow makes its tables by some fifty migrations, each by itself, and gives up a database that was left amid them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.storage.places import local_folder
from orchestrator.store.locks import exclusive_lock

SQLITE = "sqlite:///"

# Making the tables takes a second or two; a machine that is busy needs longer
SECONDS_OF_BIRTH = 120

# What SQLite keeps beside a database that is being written
SIDE_FILES = ("-journal", "-wal", "-shm")

# MLflow's own tables, which have had these names in all of its versions that know models
PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def database_file(uri: str) -> Path | None:
    """The file of an sqlite store; None for another store."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute()


def make_ready(file: Path) -> str:
    """Make the database where there is none, and in place of one that is broken; gives a line about that, or nothing."""
    if _holds_something(file) and fault_of(file) is None:
        return ""
    with exclusive_lock(file.parent / "locks", file.name, SECONDS_OF_BIRTH) as locked:
        if not locked:
            raise TimeoutError(f"{file} is being made by another process, for {SECONDS_OF_BIRTH} s by now")
        line = ""
        if _holds_something(file):
            fault = fault_of(file)
            # another process made it while this one waited
            if fault is None:
                return ""
            kept = _set_aside(file)
            line = f"{file} was broken ({fault}): kept as {kept.name}, and filled anew from the journals"
        _make(file)
    return line


def fault_of(file: Path) -> str | None:
    """What is wrong with the content of a database; None for a sound one.

    Raises sqlite3.OperationalError where it cannot be asked now: one that is locked or may not be read is not broken.
    """
    try:
        with connected(file) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                return str(verdict).splitlines()[0]
            names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            # MLflow's last act on a new database is to enter its default experiment
            is_whole = {"alembic_version", "experiments"} <= names and database.execute(
                "SELECT count(*) FROM experiments"
            ).fetchone() != (0,)
            is_amid = any(name.startswith("_alembic_tmp_") for name in names)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if is_whole and not is_amid else "its tables were only half made"


@contextlib.contextmanager
def connected(file: Path) -> Iterator[sqlite3.Connection]:
    """A database that is there, past MLflow, whose import takes longer than most questions. None is made by asking."""
    # not read-only: what a process that died left half written is first rolled back
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", timeout=20, uri=True)) as database:
        yield database


def artifacts_of(out: str) -> str:
    """The URI of the folder of artifacts of an output folder's own store."""
    return (local_folder(out) / "mlartifacts").as_uri()


def follow_folder(file: Path, out: str) -> None:
    """Make the store that lies in an output folder read its artifacts there, wherever they were written."""
    if file.parent != local_folder(out).absolute():
        return
    here = artifacts_of(out)
    with connected(file) as database:
        rows = database.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'"
        )
        for (root,) in rows.fetchall():
            # that of MLflow's own experiment, in which we write nothing, ends otherwise
            if root == here or not root.endswith("/mlartifacts"):
                continue
            for table, column in PLACES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ? || '/%'",
                    (here, len(root) + 1, root, root),
                )
            moved_from = root.removesuffix("/mlartifacts")
            database.execute(
                "UPDATE logged_model_tags SET tag_value = ? || substr(tag_value, ?)"
                " WHERE tag_key = 'checkpoint_uri' AND tag_value LIKE ? || '/%'",
                (here.removesuffix("/mlartifacts"), len(moved_from) + 1, moved_from),
            )
        database.commit()


def _holds_something(file: Path) -> bool:
    # SQLite makes an empty file of whatever is opened
    return file.exists() and file.stat().st_size > 0


def _set_aside(file: Path) -> Path:
    """Rename a database, and first what belongs to it: a journal that stayed would be played into the next one."""
    kept = file.with_name(f"{file.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}")
    for ending in (*SIDE_FILES, ""):
        side_file = file.with_name(file.name + ending)
        if side_file.exists():
            side_file.replace(kept.with_name(kept.name + ending))
    return kept


def _make(file: Path) -> None:
    """Make a database under another name, and give it its own when MLflow is through. Call it under the lock."""
    import mlflow

    # under the lock nobody else is at it: these are of processes that died
    for left in file.parent.glob(f".{file.name}.*"):
        left.unlink()
    for ending in SIDE_FILES:
        file.with_name(file.name + ending).unlink(missing_ok=True)
    # a name of its own each time: MLflow makes tables only at the first sight of a URI
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    mlflow.MlflowClient(f"{SQLITE}{unfinished}").search_experiments()
    unfinished.replace(file)
