"""The sqlite file of a store: whole or not there, whoever is killed and however many make it; one that is broken gives way."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import mlflow
import pytest

from orchestrator.tracking import MlflowSync
from orchestrator.tracking.database import SQLITE, connected, database_file, fault_of, follow_folder, make_ready
from tests.orchestrator.tracking.journals import Copied, begun, ended, write


def start_process(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """A copy of this process, which has MLflow imported already."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def bytes_of_databases(folder: Path) -> int:
    """How much of a store is written by now, under whatever name."""
    total = 0
    for file in folder.glob("*mlflow.db*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            # renamed between the two looks
            continue
    return total


@pytest.mark.slow
def test_a_process_that_is_killed_amid_the_birth_leaves_no_half_of_a_database(tmp_path: Path) -> None:
    """Its pages, of which all tables take some 700,000 bytes: killed after the first, and after more and more of them."""
    copied = Copied(tmp_path)
    write(tmp_path, [*begun(), *ended()])
    for written in (1, 150_000, 400_000):
        process = start_process(copied.copy)
        deadline = time.monotonic() + 60
        while bytes_of_databases(tmp_path) < written and time.monotonic() < deadline:
            time.sleep(0.001)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not copied.database.exists()
    copied.copy()
    assert len(copied.rows()["runs"]) == 2
    assert {file.name for file in tmp_path.glob("*mlflow.db*")} == {"mlflow.db"}, "nor is anything left of the first"


def in_two_processes_at_once(work: Callable[[], object]) -> list[int | None]:
    """Their exit codes."""
    barrier = multiprocessing.get_context("fork").Barrier(2)

    def wait_and_work() -> None:
        barrier.wait()
        work()

    processes = [start_process(wait_and_work) for _ in range(2)]
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_two_that_start_at_once_make_one_store(tmp_path: Path) -> None:
    """As two experiments do in a fresh folder: the second must not put its own in the place of what the first writes to."""
    file = tmp_path / "mlflow.db"

    def make() -> None:
        make_ready(file)
        (tmp_path / f"seen by {os.getpid()}").write_text(str(file.stat().st_ino))

    assert in_two_processes_at_once(make) == [0, 0]
    seen = [path.read_text() for path in tmp_path.glob("seen by *")]
    assert len(seen) == 2 and len(set(seen)) == 1
    assert [path.name for path in tmp_path.glob("*mlflow*")] == ["mlflow.db"]


def test_two_that_copy_the_same_sequence_at_once_make_its_runs_once(copied: Copied) -> None:
    """As two experiments do that share it."""
    write(copied.out, [*begun(), *ended()])
    assert in_two_processes_at_once(copied.copy) == [0, 0]
    assert len(copied.rows()["runs"]) == 2
    assert len(copied.rows()["models"]) == 1


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def flip(file: Path) -> None:
    """Zeros over pages in its middle, which no question asks for that is not about them."""
    content = bytearray(file.read_bytes())
    content[200_000:260_000] = bytes(60_000)
    file.write_bytes(content)


def stop_amid_a_migration(file: Path) -> None:
    with connected(file) as database:
        database.execute("CREATE TABLE _alembic_tmp_tags (key TEXT)")
        database.commit()


def stop_before_the_last_step(file: Path) -> None:
    with connected(file) as database:
        database.execute("DELETE FROM experiments")
        database.commit()


def lose_a_table(file: Path) -> None:
    with connected(file) as database:
        database.execute("DROP TABLE alembic_version")
        database.commit()


BROKEN = (cut, overwrite, flip, stop_amid_a_migration, stop_before_the_last_step, lose_a_table)


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__)
def test_what_is_broken_is_known(break_it: Callable[[Path], None], template: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(template, file)
    assert fault_of(file) is None
    break_it(file)
    fault = fault_of(file)
    assert fault and "\n" not in fault


@pytest.mark.slow
def test_a_database_that_is_broken_is_kept_aside_and_filled_anew(copied: Copied) -> None:
    write(copied.out, [*begun(), *ended()])
    copied.copy()
    before = copied.rows()
    stop_amid_a_migration(copied.database)
    broken = copied.database.read_bytes()
    lines: list[str] = []
    # something new to be sent: only then is all of a database looked at
    write(copied.out, ended()[:1])
    sync = MlflowSync(copied.uri, "test", str(copied.out), tell=lines.append)
    sync.follow(["s"])
    assert sync.close(60), sync.trouble
    (line,) = lines
    assert line.startswith(f"{copied.database} was broken (its tables were only half made): kept as mlflow.db.broken-")
    (kept,) = copied.out.glob("mlflow.db.broken-*")
    assert kept.read_bytes() == broken
    rows = copied.rows()
    assert (rows["runs"], rows["models"]) == (before["runs"], before["models"])
    assert len(rows["metrics"]) == len(before["metrics"]) + 1, "all that there was, and the new sample"


def test_neither_an_empty_file_nor_a_journal_that_stayed_is_in_the_way(template: Path, tmp_path: Path) -> None:
    """Of a process that was killed while it wrote, and whose database somebody deleted; then somebody asked for it."""
    file = tmp_path / "mlflow.db"
    journal = tmp_path / "mlflow.db-journal"
    shutil.copy(template, file)
    database = sqlite3.connect(file, isolation_level=None)
    # a cache that is too small for what is changed, so that the journal is complete on the disk before the end
    database.execute("PRAGMA cache_size = 2")
    database.execute("BEGIN")
    database.execute("UPDATE alembic_version SET version_num = 'another'")
    database.execute("CREATE TABLE filler AS SELECT a.sql FROM sqlite_master a, sqlite_master b")
    content = journal.read_bytes()
    database.execute("ROLLBACK")
    database.close()
    assert content
    file.write_bytes(b"")
    journal.write_bytes(content)
    assert make_ready(file) == ""
    assert [path.name for path in tmp_path.glob("mlflow*")] == ["mlflow.db"]
    assert fault_of(file) is None
    before = file.read_bytes()
    assert make_ready(file) == ""
    assert file.read_bytes() == before


def test_what_cannot_be_asked_is_not_called_broken(tmp_path: Path) -> None:
    folder = tmp_path / "mlflow.db"
    folder.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        make_ready(folder)
    assert folder.is_dir()


def test_a_folder_that_was_moved_has_its_artifacts_where_it_is(
    copied: Copied, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(copied.out, [*begun(), *ended()])
    copied.copy()
    moved = Copied(tmp_path_factory.mktemp("moved to") / "a #1 folder")
    shutil.move(copied.out, moved.out)
    follow_folder(moved.database, str(moved.out))
    client = mlflow.MlflowClient(moved.uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment and experiment.artifact_location == f"{moved.out.as_uri()}/mlartifacts"
    for run in client.search_runs([experiment.experiment_id]):
        if run.data.tags["orchestrator.task_id"] == "-1":
            assert "config.yaml" in {file.path for file in client.list_artifacts(run.info.run_id)}
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.artifact_location.startswith(moved.out.as_uri())
    state = moved.state()
    follow_folder(moved.database, str(moved.out))
    assert moved.state() == state
    write(moved.out, ended()[:1])
    moved.copy()
    assert not copied.out.exists(), "nothing is written where it was"


def test_a_store_elsewhere_keeps_its_artifacts(copied: Copied) -> None:
    """As many output folders may share one."""
    write(copied.out, begun())
    copied.copy()
    state = copied.state()
    follow_folder(copied.database, f"{copied.out}/deeper")
    assert copied.state() == state


def test_only_sqlite_has_a_file() -> None:
    assert database_file(f"{SQLITE}/a/b.db?timeout=5") == Path("/a/b.db")
    assert database_file(f"{SQLITE}b.db") == Path("b.db").absolute()
    assert database_file("postgresql://host/b") is None
