"""TODO orchestrator.cluster.worker"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.errors import SequenceFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View, read_view


def work_through(settings: dict[str, Any]) -> None:
    """What every worker of a group runs: take sequences that nobody else has taken, until none is left.

    A claim is a lock in the storage, which ends with its holder. So a group that died is followed by itself or by another,
    and both go on from the last checkpoint.
    """
    import ray.train.torch
    import torch

    from orchestrator.training.parallel import Parallel
    from orchestrator.training.sequence import run_sequence

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    parallel = Parallel.current(device)
    for values in settings["sequences"]:
        sequence = SequencePlan.model_validate(values)
        with _lock_sequence(sequence, settings["started"]) if parallel.writes else contextlib.nullcontext(True) as mine:
            if not parallel.agree(mine and _is_due(sequence, settings)):
                continue
            try:
                run_sequence(sequence, evaluate=settings["evaluate"], parallel=parallel, until=settings["until"])
            except SequenceFailed:
                continue  # it is in the journal; the other sequences go on


@contextlib.contextmanager
def _lock_sequence(sequence: SequencePlan, started: int) -> Iterator[bool]:
    """Try to be the only one that trains a sequence; False if another group of this run does.

    A process that still holds it from an earlier run, one that was killed, is waited for.
    """
    store = Store(Path(sequence.out))
    while True:
        with store.lock(f"sequence-{sequence.id}", timeout=1) as mine:
            if mine:
                yield True
                return
        if any(start >= started for start in read_view(sequence.out, sequence.id).starts):
            yield False
            return


def _is_due(sequence: SequencePlan, settings: dict[str, Any]) -> bool:
    """Whether a sequence has not ended in this run. One whose workers died again and again is noted as failed."""
    view = read_view(sequence.out, sequence.id)
    attempts = sum(start >= settings["started"] for start in view.starts)
    if settings["until"] and _has_reached(view, settings["until"], settings["evaluate"]):
        return False
    if view.ended_at < settings["started"] and attempts > settings["max_failures"]:
        reason = f"its workers died {attempts} times (scaling.max_failures is {settings['max_failures']})"
        Journal(journal_folder(sequence.out, sequence.id)).append(events.SequenceFailed(reason=reason))
        return False
    return view.ended_at < settings["started"]


def _has_reached(view: View, until: int, scored: bool) -> bool:
    """Whether a sequence has trained so many tasks, and scored them where the workers do that."""
    tasks = [view.by_task.get(task_id) for task_id in range(until)]
    trained = all(task and task.checkpoint for task in tasks)
    return trained and (not scored or all(view.has_all_scores(row) for row in range(until + 1)))
