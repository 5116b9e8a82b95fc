"""`orchestrator check-method`: runs every check on one part and prints what it found."""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from methods import method_class
from orchestrator.contract.checks import CHECKS, Check, ContractViolation, NotApplicable
from orchestrator.contract.subject import Subject, usual_model
from orchestrator.errors import UserError
from orchestrator.logs import traceback_of

Outcome = Literal["passed", "failed", "skipped"]
STYLES: dict[Outcome, str] = {"passed": "green", "failed": "red", "skipped": "dim"}


@dataclass(frozen=True)
class CheckResult:
    """What one check found; `traceback` where the part raised an error of its own."""

    check: str
    outcome: Outcome
    reason: str = ""
    traceback: str = ""


def check_method(name: str) -> list[CheckResult]:
    """The results of all checks on a part, named as in a configuration. Raises UserError where there is no such part."""
    try:
        model = usual_model(method_class(name).card)
    except ValueError as error:
        raise UserError(str(error)) from error
    results = []
    with tempfile.TemporaryDirectory(prefix="check-method-") as folder:
        subject = Subject(name, Path(folder), model)
        for title, check in CHECKS.items():
            results.append(run_check(title, check, subject))
    return results


def run_check(title: str, check: Check, subject: Subject) -> CheckResult:
    """One check's result, whatever the part does."""
    try:
        check(subject)
    except NotApplicable as why:
        return CheckResult(title, "skipped", str(why))
    except ContractViolation as violation:
        return CheckResult(title, "failed", str(violation))
    # the part is somebody's code: its errors are the result
    except Exception as error:
        return CheckResult(title, "failed", _where(error), traceback_of(error))
    return CheckResult(title, "passed")


def _where(error: Exception) -> str:
    """The first error in one line, with the line of code that raised it."""
    cause: BaseException = error
    # the loop wraps what it catches; the author of the part looks for the error of their own line
    while cause.__cause__ is not None:
        cause = cause.__cause__
    message = (str(cause).splitlines() or ["no message"])[0]
    frames = traceback.extract_tb(cause.__traceback__)
    line = ""
    if frames:
        line = f" ({frames[-1].filename}:{frames[-1].lineno})"
    return f"{type(cause).__name__}: {message}{line}"


def print_checks(results: list[CheckResult], console: Console) -> None:
    """A table with a row for each check."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for result in results:
        table.add_row(result.check, result.outcome, result.reason, style=STYLES[result.outcome])
    console.print(table)


def as_json(results: list[CheckResult]) -> list[dict[str, Any]]:
    """The results as plain values."""
    return [asdict(result) for result in results]
