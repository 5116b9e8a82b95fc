"""What is copied of Ray's files, and how Ray's long messages become a line."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster.ray_logs import TAIL_BYTES, RayProcess, death, exit_reason, introduced, read_tails

MESSAGE = """The actor died unexpectedly before finishing this task.
\tpid: 42
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed"""


def process(session: Path) -> RayProcess:
    return RayProcess(pid=42, machine="10.0.0.7", node_id="node", worker_id="abc", session_logs=str(session))


def test_the_ends_of_a_process_own_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "worker-abc-01-42.err").write_bytes(b"x" * TAIL_BYTES + b"the end")
    (tmp_path / "worker-abc-01-42.out").write_bytes(b"")
    (tmp_path / "worker-other-01-43.err").write_bytes(b"another's")
    (tmp_path / "python-core-worker-abc_42.log").write_bytes(b"core")
    (tmp_path / "raylet.out").write_bytes(b"started worker_id=abc\nnothing\nkilled pid 42 for want of memory\n")
    tails = read_tails(process(tmp_path))
    assert sorted(tails) == ["core.log", "err", "raylet.log"]
    assert len(tails["err"]) == TAIL_BYTES
    assert tails["err"].endswith(b"the end")
    assert tails["core.log"] == b"core"
    assert tails["raylet.log"] == b"started worker_id=abc\nkilled pid 42 for want of memory\n"


def test_what_a_library_printed_is_copied_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "worker-abc-01-42.err").write_bytes(b"\xff asking http://u:secret@h\n")
    assert read_tails(process(tmp_path)) == {"err": b"\xff asking http://***@h\n"}


def test_a_folder_that_is_gone_has_nothing(tmp_path: Path) -> None:
    assert read_tails(process(tmp_path / "gone")) == {}
    assert introduced(tmp_path / "nobody.json") is None


def test_a_death_is_one_line(tmp_path: Path) -> None:
    reason = "SYSTEM_ERROR, Worker unexpectedly exits with a connection error code 2. End of file"
    assert exit_reason(MESSAGE) == reason
    assert exit_reason("several\nlines, the last says it\n") == "lines, the last says it"
    assert exit_reason("") == "no message"
    line = death("worker 1", process(tmp_path), RuntimeError(MESSAGE))
    assert line.startswith("worker 1 (pid 42 on 10.0.0.7) ended without a word")
    assert line.endswith(reason)
    assert "\n" not in line
