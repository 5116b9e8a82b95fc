"""What of a stream's data a plan takes: leaks that chance leaves or that the user allows, and tasks to tune on."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import UserError
from streams import LeakKind, Stream, find_leaks


def check_leaks(stream: Stream, allow: Sequence[LeakKind]) -> list[str]:
    """A line to tell for each leak that is taken. Raises UserError with a line for each that is not."""
    told = []
    refused: dict[LeakKind, None] = {}
    refused_lines = []
    for leak in find_leaks(stream):
        if not leak.is_refused:
            told.append(leak.line)
        elif leak.kind in allow:
            told.append(f"{leak.line} (allowed)")
        else:
            refused[leak.kind] = None
            refused_lines.append(leak.line)
    if refused_lines:
        # said once, at the end: it holds for all lines
        refused_lines[-1] += f"; `allow: [{', '.join(refused)}]` in the stream's entry trains on it all the same"
        raise UserError("\n".join(refused_lines))
    return told


def check_dev(stream: Stream) -> None:
    """Raises UserError for a task to tune on without a dev split, and for a corpus."""
    for task in stream.tasks:
        # neither the proof that nothing overlaps nor the lengths of tasks are counted in documents
        if task.objective == "text":
            raise UserError(
                f"search.streams: task {task.name!r} of stream {stream.name!r} is a corpus; a search tunes on tasks with answers"
            )
        if not task.has_dev:
            raise UserError(
                f"search.streams: task {task.name!r} of stream {stream.name!r} has no dev split; raise dev_fraction"
            )
