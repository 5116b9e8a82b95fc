"""A few gloo workers of this process's own, for tests of what workers do together."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def in_workers(check: Callable[[int], None], count: int, folder: Path) -> None:
    """Call `check(rank)` in `count` processes of one group. Raises AssertionError with the failures' tracebacks."""
    # forked, they need not import torch again, and may be given any function
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    workers = []
    for rank in range(count):
        workers.append(context.Process(target=_work, args=(check, rank, count, folder / "rendezvous", failures)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    told = []
    while not failures.empty():
        told.append(failures.get())
    assert not told, "\n".join(told)
    assert [worker.exitcode for worker in workers] == [0] * count


def _work(
    check: Callable[[int], None], rank: int, count: int, rendezvous: Path, failures: multiprocessing.Queue
) -> None:  # type: ignore[type-arg]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    try:
        check(rank)
    except BaseException:
        failures.put(traceback.format_exc())
        raise
    dist.destroy_process_group()
