"""Log files, what goes into them, and what stays off the screen."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import logs


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in logs.PACKAGES}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers.clear()


def raised() -> ValueError:
    """An error with a cause, both with a stack."""
    try:
        try:
            _ = {}["inner"]
        except KeyError as inner:
            raise ValueError("outer\nand more") from inner
    except ValueError as error:
        return error


def test_a_failure_is_appended_with_its_whole_traceback(tmp_path: Path) -> None:
    log = logs.worker_log(tmp_path, "ft-s1", 1)
    logs.write_failure(log, "first", raised())
    logs.write_failure(log, "second", raised())
    assert log == tmp_path / "logs" / "ft-s1" / "worker-1.log"
    text = log.read_text()
    assert text.index("FAILED first") < text.index("FAILED second")
    assert text.count("KeyError: 'inner'") == text.count("ValueError: outer") == 2
    assert f'File "{__file__}", line' in text


def test_a_log_that_cannot_be_written_hides_no_failure(tmp_path: Path) -> None:
    blocking = tmp_path / "logs"
    blocking.write_text("a file where the folder would be")
    logs.write_failure(logs.driver_log(tmp_path), "anything", raised())
    assert blocking.read_text() == "a file where the folder would be"


def test_a_reason_is_one_line() -> None:
    assert logs.reason(raised()) == "ValueError: outer"
    assert logs.reason(KeyError()) == "KeyError: no message"


def test_what_a_worker_logs_goes_to_its_file_alone(tmp_path: Path) -> None:
    ours = logging.getLogger("orchestrator.somewhere")
    users = logging.getLogger("my_plugin")
    log = tmp_path / "deep" / "worker-0.log"
    ours.info("before")
    with logs.to_file(log):
        ours.info("the machinery")
        users.info("the user's own")
        users.debug("too fine")
    ours.warning("after")
    text = log.read_text()
    assert "INFO orchestrator.somewhere: the machinery" in text
    assert "INFO my_plugin: the user's own" in text
    for absent in ("before", "too fine", "after"):
        assert absent not in text


def test_what_is_logged_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-token")
    log = tmp_path / "worker-0.log"
    with logs.to_file(log):
        logging.getLogger("urllib3").info("asking %s with %s", "http://u:secret@h", "planted-token")
    assert log.read_text().endswith("INFO urllib3: asking http://***@h with ***\n")
    error = OSError("no answer from http://u:secret@h")
    assert logs.reason(error) == "OSError: no answer from http://***@h"
    assert logs.traceback_of(error).endswith("http://***@h\n")


def test_a_log_on_a_full_disk_prints_nothing_and_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Python's logging would print a traceback for each line, and Ray show it on the screen."""
    with logs.to_file(Path("/dev/full")):
        for _ in range(3):
            logging.getLogger("orchestrator.training").info("a line")
    assert capfd.readouterr() == ("", "")


def test_a_crash_that_python_does_not_see_leaves_its_stack(tmp_path: Path) -> None:
    code = f"""
import faulthandler
from pathlib import Path
from orchestrator import logs
with logs.to_file(Path({str(tmp_path / "worker-0.log")!r})):
    faulthandler._sigsegv()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0
    text = (tmp_path / "worker-0.log").read_text()
    assert "Segmentation fault" in text
    assert 'File "<string>", line 6' in text


def test_loggers_are_quiet_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("orchestrator.run")
    logger.info("quiet")
    assert capsys.readouterr().err == ""
    stream = io.StringIO()
    logs.show_progress(Console(file=stream, width=200))
    logs.show_progress(Console(file=stream, width=200))
    logger.info("progress %d", 1)
    logging.getLogger("somebody_elses").info("not ours")
    assert stream.getvalue().count("progress 1") == 1
    assert "not ours" not in stream.getvalue()


def test_failures_are_written_and_go_on(tmp_path: Path) -> None:
    log = logs.trial_log(tmp_path, "ft-001")
    with pytest.raises(ZeroDivisionError), logs.failures_to(log, "trial ft-001"):
        _ = 1 / 0
    assert "FAILED trial ft-001" in log.read_text()
    assert "ZeroDivisionError: division by zero" in log.read_text()
