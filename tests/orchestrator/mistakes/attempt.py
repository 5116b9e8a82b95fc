"""One malformed input, given to the command line in this process, and what became of it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

MOST_CHARACTERS = 300
MOST_SECONDS = 5.0


class Accepted(BaseException):
    """Raised at the door instead of training: all checks have let an input pass. No handler of errors takes it for one."""


@dataclass(frozen=True)
class Mistake:
    """A command and the files that it reads. `kind` names it in the figures; `code` is the exit code that it must have."""

    kind: str
    arguments: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    code: int = 2

    def __str__(self) -> str:
        return f"{self.kind}: {list(self.arguments)} {[(n, c[:120]) for n, c in self.files][:3]}"[:250]


@dataclass
class Figures:
    """How many mistakes of each kind there were, and what is wrong with the answers to some."""

    tried: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = []
        for kind, number in self.tried.items():
            lines.append(f"{kind}: {number} tried, {len(self.wrong.get(kind, []))} not refused properly")
        return "\n".join(lines)


def drawn(strategy: SearchStrategy[Mistake], number: int) -> list[Mistake]:
    """So many draws of a strategy, each kept once: the same ones in every run."""
    found: dict[Mistake, None] = {}

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(mistake: Mistake) -> None:
        found[mistake] = None

    collect()
    return list(found)


def check(mistakes: Iterable[Mistake], folder: Path) -> Figures:
    """Give each mistake to the command line. Fails with all that are not answered by one short line."""
    figures = Figures()
    for mistake in mistakes:
        figures.tried[mistake.kind] += 1
        fault = fault_of(mistake, folder)
        if fault:
            figures.wrong.setdefault(mistake.kind, []).append(f"{fault}\n    {mistake}")
    print(figures)
    lines = [line[:400] for wrong in figures.wrong.values() for line in wrong]
    assert not lines, f"{len(lines)} of {figures.tried.total()}:\n" + "\n".join(lines)
    return figures


def fault_of(mistake: Mistake, folder: Path) -> str:
    """What is wrong with the answer to a mistake; empty where it is as it must be."""
    for name, content in mistake.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = _tree(folder)
    begin = time.process_time()
    code, stderr = _run(mistake.arguments, folder)
    seconds = time.process_time() - begin
    after = _tree(folder)
    _clear(folder)
    # doubts about data are told before what is wrong with it
    lines = [line for line in stderr.strip().splitlines() if not line.startswith("warning: ")]
    if "Traceback" in stderr:
        return f"traceback: {lines[-1][:200]}"
    if code != mistake.code:
        return f"exit code {code}: {stderr.strip()[:200]}"
    if len(lines) != 1:
        return f"{len(lines)} lines: {stderr[:200]}"
    if len(lines[0]) > MOST_CHARACTERS:
        return f"{len(lines[0])} characters: {stderr[:200]}"
    if after != before:
        return f"left behind: {sorted(after - before)[:3]}"
    if seconds > MOST_SECONDS:
        return f"{seconds:.0f} s"
    return ""


def _run(arguments: Iterable[str], folder: Path) -> tuple[object, str]:
    """The exit code and what was written to stderr, of the options' parser too."""
    from orchestrator.cli import main

    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        _stop_at_the_door(patch)
        # of the processor's time, of which a busy machine takes no more
        signal.signal(signal.SIGVTALRM, _give_up)
        patch.setattr(sys, "argv", ["orchestrator", *arguments])
        # a width at which no box of the options' parser is broken into lines
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            signal.setitimer(signal.ITIMER_VIRTUAL, 2 * MOST_SECONDS)
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = end.code
            except Accepted:
                code = "accepted"
            except BaseException:
                code = 1
                stderr.write(traceback.format_exc())
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return code, stderr.getvalue()


def _stop_at_the_door(patch: pytest.MonkeyPatch) -> None:
    """Nothing is trained, served or measured: what got so far was accepted."""
    import orchestrator.bench
    import orchestrator.dry_run
    import orchestrator.run
    import orchestrator.search.protocol

    patch.setattr(orchestrator.run, "run_planned", _accept)
    patch.setattr(orchestrator.search.protocol, "exclusive_run", _accept)
    patch.setattr(orchestrator.dry_run, "_totals", _accept)
    patch.setattr(os, "execve", _accept)
    patch.setattr(orchestrator.bench.costs, "_second_task", _accept)
    for name in set(orchestrator.bench.__all__) - {"method_costs", "checkpoint_costs"}:
        patch.setattr(orchestrator.bench, name, _accept)
    patch.setattr(orchestrator.bench.checkpoints._Pass, "run", _accept)


def _give_up(*_: object) -> None:
    raise TimeoutError("no answer by now")


def _accept(*_: object, **__: object) -> None:
    raise Accepted


def _tree(folder: Path) -> set[tuple[str, int]]:
    """The paths below a folder, with their sizes."""
    found = set()
    for path in folder.rglob("*"):
        found.add((str(path), path.lstat().st_size if path.is_file() else 0))
    return found


def _clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
