"""What the commands share: consoles that show text as it is, and failures that name their log."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.app import failures_logged, make_console, possible_name, screen_console
from orchestrator.errors import CommandFailed, NonFiniteLoss, SequenceFailed, UserError
from orchestrator.logs import PACKAGES


@pytest.fixture
def loggers() -> Iterator[None]:
    """Leaves our packages' loggers as they were."""
    before = {}
    for name in PACKAGES:
        logger = logging.getLogger(name)
        before[name] = (logger.level, list(logger.handlers))
    yield
    for name, (level, handlers) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers = handlers


@pytest.mark.parametrize("stderr", [False, True])
def test_a_bracket_is_no_markup(stderr: bool, capsys: pytest.CaptureFixture[str]) -> None:
    make_console(stderr).print("task [red] of [/x]")
    captured = capsys.readouterr()
    shown, other = (captured.err, captured.out) if stderr else (captured.out, captured.err)
    assert (shown, other) == ("task [red] of [/x]\n", "")


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize("verbose", [False, True])
def test_what_the_modules_log_is_on_the_same_screen_if_it_is_wanted(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    console = screen_console(verbose)
    assert console.stderr
    logging.getLogger("orchestrator.cluster.worker").info("worker 1 begins")
    assert ("worker 1 begins" in capsys.readouterr().err) == verbose


@pytest.mark.parametrize("error", [UserError("u"), SequenceFailed("s"), NonFiniteLoss("n"), CommandFailed("c")])
def test_an_error_that_says_all_is_passed_on_and_leaves_no_log(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        with failures_logged(str(tmp_path / "out"), "run"):
            raise error
    assert caught.value is error
    assert not (tmp_path / "out").exists()


def test_an_error_that_nobody_foresaw_is_one_line_that_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        with failures_logged(str(tmp_path), "tune"):
            raise KeyError("x\nand more")
    log = tmp_path / "logs" / "driver.log"
    assert str(caught.value).endswith(f"; log: {log}")
    assert str(caught.value).startswith("KeyError: ")
    text = log.read_text()
    assert "FAILED orchestrator tune" in text
    assert f'File "{__file__}"' in text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_a_command_makes_no_failure(stop: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(stop), failures_logged(str(tmp_path / "out"), "run"):
        raise stop
    assert not (tmp_path / "out").exists()


def test_help_and_mistakes_wait_for_nothing_heavy() -> None:
    """In a process of its own, since this one has imported all of it."""
    program = """
import sys
sys.argv = ["orchestrator", "--help"]
from orchestrator.cli import main
try:
    main()
finally:
    heavy = {"torch", "ray", "mlflow", "transformers", "scipy", "numpy", "pydantic"}
    print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "a/" * 600, "é" * 200])
def test_a_name_that_nothing_can_have(name: str) -> None:
    with pytest.raises(UserError, match="no experiment and no folder can be called"):
        possible_name(name)


def test_a_name_that_something_may_have() -> None:
    for name in ("order4", "runs/experiments/order4", "é" * 100):
        assert possible_name(name) == name
