"""Several sequences in one pass: those that differ in numbers such as the learning rate read the same batches in the same order.

Each runs as it would alone, in a thread of its own, with its own optimizer, schedule, clipping, journal and checkpoints. Only
the forward and the backward pass of a step are made together. One thread runs at a time, as training draws from torch's global
generator, and the one that is furthest behind comes first: who found a state in the store waits for the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from orchestrator.errors import SequenceFailed
from orchestrator.planning.fusing import why_not_fused
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import View, read_view
from orchestrator.training.fused.meeting import FusedParallel, Meeting
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence


def run_fused(sequences: Sequence[SequencePlan], evaluate: bool = True, until: int | None = None) -> list[View]:
    """What `run_sequence` does for each of the sequences, on this process's device, with their steps computed together.

    A sequence that fails by its own fault ends no other one, and its view says that it failed. Any other error is raised when
    all have ended. The seconds in journals and checkpoints are those of all sequences together. Raises ValueError where there
    is a reason why not (see `why_not_fused`).
    """
    alone = Parallel.current()
    reason = why_not_fused(sequences)
    if alone.count > 1:
        reason = "several workers share each sequence"
    if reason:
        raise ValueError(f"these sequences cannot be trained in one pass: {reason}")
    meeting = Meeting(len(sequences), alone.device)
    with _exclusive(sequences), ThreadPoolExecutor(len(sequences)) as threads:
        running = []
        for number, sequence in enumerate(sequences):
            parallel = FusedParallel(device=alone.device, meeting=meeting, number=number)
            running.append(threads.submit(_run, sequence, parallel, evaluate, until))
        try:
            wait(running)
        finally:
            # Ctrl-C reaches this thread alone
            meeting.stop()
    return [thread.result() for thread in running]


@contextlib.contextmanager
def _exclusive(sequences: Sequence[SequencePlan]) -> Iterator[None]:
    """Be the only group that trains any of the sequences' states.

    A member that waited for a state that another group trains would hold up its own group, which may be waited for there.
    """
    with contextlib.ExitStack() as held:
        # sequences that share any trained state share the first one; in one order everywhere, so that no two groups each hold
        # what the other one waits for
        for key in sorted(sequence.keys[1] for sequence in sequences):
            held.enter_context(Store(folder_at(sequences[0].out)).lock(f"fused-{key}", timeout=-1))
        yield


def _run(sequence: SequencePlan, parallel: FusedParallel, evaluate: bool, until: int | None) -> View:
    with parallel.meeting.turn:
        if parallel.device.type == "cuda":
            # each thread has a current device of its own
            torch.cuda.set_device(parallel.device)
        try:
            return run_sequence(sequence, evaluate=evaluate, parallel=parallel, until=until)
        except SequenceFailed:
            return read_view(sequence.out, sequence.id)
        finally:
            parallel.meeting.leave(parallel.number)
