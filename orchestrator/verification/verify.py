"""Reads every file of an experiment, or of a search, and says which are not what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.store.access_log import TestAccessLog
from orchestrator.verification.findings import Finding, Remedy
from orchestrator.verification.lines import damaged_lines, is_whole_line
from orchestrator.verification.mend import mend
from orchestrator.verification.plans import Planned, damaged_plan_files, find_planned
from orchestrator.verification.sequences import SequenceFiles

Check = Callable[[], list[Finding]]


def verify(run: str, out: str, console: Console, repair: bool = False) -> dict[str, Any]:
    """What is damaged of an experiment, a search or their states, as a JSON object; with `repair`, mended as far as it can be.

    Raises UserError where there is nothing of that name, or, with `repair`, where a command runs that writes to it.
    """
    planned = find_planned(run, out)
    findings = find_damage(planned, console)
    if repair and findings:
        mend(planned, findings)
    shown = []
    num_lost = 0
    for finding in findings:
        num_lost += finding.remedy is Remedy.NONE
        path = str(finding.file.relative_to(planned.out))
        shown.append({"file": path, "what": finding.what, "remedy": finding.remedy.value})
    return {
        "run": run,
        "experiment": planned.folder.name,
        "out": str(planned.out),
        "sequences": len(planned.sequences),
        "damaged": shown,
        "repaired": repair and bool(findings),
        "lost": num_lost,
        "next": _next_command(planned, findings, repair),
    }


def find_damage(planned: Planned, console: Console) -> list[Finding]:
    """All that is damaged, each once: sequences may share states and scores."""
    checks: list[Check] = [lambda: list(damaged_plan_files(planned)), lambda: list(_damaged_access_log(planned))]
    seen: set[str] = set()
    for files in planned.sequences:
        keys = set(files.sequence.keys) - seen
        seen |= keys
        checks.append(partial(_check_sequence, files, keys))
    findings: dict[tuple[str, str], Finding] = {}
    # hashing leaves Python's lock to other threads; processes would take longer to start than most stores to read
    with ThreadPoolExecutor() as threads:
        running = []
        for check in checks:
            running.append(threads.submit(check))
        for done in track(running, "reading", console=console, transient=True, disable=not console.is_interactive):
            for finding in done.result():
                findings[str(finding.file), finding.what] = finding
    return list(findings.values())


def _check_sequence(files: SequenceFiles, keys: set[str]) -> list[Finding]:
    """The damage of a sequence's files; of its states those with these keys, which no sequence before has."""
    findings = list(files.damaged_journal())
    for tasks_seen, key in enumerate(files.sequence.keys):
        if tasks_seen > 0 and key in keys:
            findings += files.damaged_state(tasks_seen)
        # asked of each sequence: a state may be scored on other tasks by each
        findings += files.damaged_scores(tasks_seen)
    for task_id in range(len(files.sequence.tasks)):
        findings += files.damaged_points(task_id)
    return findings


def _damaged_access_log(planned: Planned) -> Iterator[Finding]:
    for file in sorted(TestAccessLog(planned.out).folder.glob("*.jsonl")):
        yield from damaged_lines(file, is_whole_line, Remedy.NONE)


def _next_command(planned: Planned, findings: list[Finding], repair: bool) -> str | None:
    """What a person does next, if anything."""
    where = f"{planned.folder.name} --out {planned.out}"
    remedies = set()
    for finding in findings:
        remedies.add(finding.remedy)
    if not findings:
        return None
    if not repair:
        return f"orchestrator verify {where} --repair"
    if remedies & {Remedy.TRAIN, Remedy.REWRITE, Remedy.FROM_STORE}:
        command = "tune" if planned.search.is_dir() else "run"
        return f"the `orchestrator {command}` command that made it, once more"
    return f"orchestrator evaluate {where}"


def print_verification(result: dict[str, Any], console: Console) -> None:
    """Print a line for each damaged file, and one for all."""
    count = len(result["damaged"])
    if not count:
        console.print(
            f"{result['run']}: {result['sequences']} sequences, every file is what was written", highlight=False
        )
        return
    table = Table(title=f"{result['run']}: damaged", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "what", "what can be done"):
        table.add_column(heading, overflow="fold")
    for row in result["damaged"]:
        table.add_row(row["file"], row["what"], row["remedy"])
    console.print(table)
    done = "put aside or mended" if result["repaired"] else "found"
    console.print(f"{count} {done}; next: {result['next']}", highlight=False, soft_wrap=True)
