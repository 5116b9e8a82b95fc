"""What the data of a stream is, before anything is trained on it: `orchestrator data`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.config.loading import load_config
from orchestrator.config.stream import StreamConfig
from orchestrator.errors import UserError
from streams import DESCRIPTIONS, READ_FROM_FOLDER, RawSplit, Stream, Task, doubts, find_leaks

Report = dict[str, Any]
# of labels outside the label set: a column of free text would fill the screen
MOST_SHOWN = 3
RAW_SPLITS: tuple[RawSplit, ...] = ("train", "test")


def report(name: str, folder: str | None = None) -> list[Report]:
    """What each stream of a recipe or file is, or the one of the catalogue, as plain values. Raises UserError.

    A report has its tasks as `Stream.manifest` describes them, with `dropped_labels` (by split the labels outside the label
    set, with their rows), `skipped_texts` and `files` beside; the doubts about them; the leaks, which are `refused` where
    a run refuses them; and the corpora, which are `not_compared` with anything.
    """
    reports = []
    for config in _streams(name, folder):
        try:
            stream = config.build()
            reports.append(_report(config, stream))
        except ValueError as error:
            raise UserError(str(error)) from error
    return reports


def _streams(name: str, folder: str | None) -> tuple[StreamConfig, ...]:
    if name in DESCRIPTIONS:
        entry: dict[str, Any] = {"name": name}
        if folder is not None:
            entry["folder"] = folder
        if folder is not None and name not in READ_FROM_FOLDER:
            raise UserError(f"--folder: stream {name!r} reads no folder")
        return (StreamConfig.model_validate(entry),)
    settings = [f"streams.folder={folder}"] if folder is not None else []
    streams: tuple[StreamConfig, ...] = load_config(name, settings).streams
    return streams


def _report(config: StreamConfig, stream: Stream) -> Report:
    tasks = []
    for task, described in zip(stream.tasks, stream.manifest(), strict=True):
        files = []
        if task.check_files is not None:
            files = list(map(asdict, task.check_files(RAW_SPLITS)))
        dropped = {split: task.dropped_labels(split) for split in RAW_SPLITS}
        tasks.append({**described, "dropped_labels": dropped, "skipped_texts": _skipped(task), "files": files})
    leaks = []
    for leak in find_leaks(stream):
        is_refused = leak.is_refused and leak.kind not in config.allow
        leaks.append({"kind": leak.kind, "line": leak.line, "refused": is_refused})
    one = {"stream": stream.name, "source": config.source, "tasks": tasks, "doubts": doubts(stream), "leaks": leaks}
    # without it, that there is no leak would be said of what nobody has looked at
    one["not_compared"] = [task.name for task in stream.tasks if task.objective == "text"]
    return one


def _skipped(task: Task) -> list[str]:
    return sorted(task.limits.skip_texts)


def print_reports(reports: list[Report], console: Console) -> None:
    """Print a table for each stream, and below it what needs a sentence."""
    for one in reports:
        console.print(_table(one))
        for line in _lines(one):
            console.print(line, highlight=False, soft_wrap=True)


def _table(one: Report) -> Table:
    table = Table(
        title=f"{one['stream']}: {len(one['tasks'])} tasks from source {one['source']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("task", no_wrap=True)
    for heading in ("train", "dev", "test", "labels", "dropped"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("scorer", "files"):
        table.add_column(heading, no_wrap=True)
    for task in one["tasks"]:
        sizes = [f"{task['sizes'][split]:,}" for split in ("train", "dev", "test")]
        labels = str(len(task["labels"])) if task["labels"] else "open"
        dropped = str(sum(task["dropped_rows"].values()))
        table.add_row(task["task"], *sizes, labels, dropped, task["scorer"], task.get("published", "–"))
    return table


def _lines(one: Report) -> list[str]:
    """Why rows are dropped, what is known of files that are not the published ones, and what leaks."""
    lines = []
    skipped: set[str] = set()
    for task in one["tasks"]:
        lines += _dropped_lines(task)
        # two splits that were cut from one file have the same to say
        files_with: dict[str, list[str]] = defaultdict(list)
        for check in task["files"]:
            if check["why"]:
                files_with[check["why"]].append(check["file"])
        for why, files in files_with.items():
            lines.append(f"{task['task']}, {' and '.join(files)}: {why}")
        skipped.update(task["skipped_texts"])
    if skipped:
        lines.append(f"rows with these texts are left out of all tasks: {', '.join(map(repr, sorted(skipped)))}")
    lines += one["doubts"]
    if one["not_compared"]:
        lines.append(f"corpora, of which no text is compared with another: {', '.join(one['not_compared'])}")
    for leak in one["leaks"]:
        word = "refused" if leak["refused"] else "not refused"
        lines.append(f"leak, {word}: {leak['line']}")
    if not one["leaks"] and len(one["not_compared"]) < len(one["tasks"]):
        lines.append("no test text is in train, and no two tasks are one")
    return lines


def _dropped_lines(task: dict[str, Any]) -> list[str]:
    lines = []
    for split, rows_of in task["dropped_labels"].items():
        if rows_of:
            shown = [f"{label!r} ({rows} rows)" for label, rows in rows_of.items()][:MOST_SHOWN]
            line = f"{task['task']}, {split}: left out for labels outside the label set: {', '.join(shown)}"
            if len(rows_of) > MOST_SHOWN:
                line += f" and {len(rows_of) - MOST_SHOWN} more labels"
            lines.append(line)
    return lines
