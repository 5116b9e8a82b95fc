"""Several sequences in one pass: those that differ in numbers such as the learning rate read the same batches in the same order.

Each runs as it would alone, in a thread of its own, with its own optimizer, schedule, clipping, journal and checkpoints. Only
the forward and the backward pass of a step are made together. One thread runs at a time, as training draws from torch's global
generator, and the one that is furthest behind comes first: who found a state in the store waits for the others.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from methods.adapters.grouped_lora import LoraGroup
from orchestrator.errors import SequenceFailed
from orchestrator.planning.fusing import why_not_fused
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import View, read_view
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.step import seed_generators

FORWARD = 0
BACKWARD = 1


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
            held.enter_context(Store(Path(sequences[0].out)).lock(f"fused-{key}", timeout=-1))
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


class Seat:
    """The model of one sequence while a task is trained, as it is called: whoever calls it waits for the group."""

    def __init__(self, meeting: Meeting, number: int, model: nn.Module, task_position: int) -> None:
        self.meeting = meeting
        self.number = number
        self.model = model
        # the task, the forward pass within it, and which half of that: the least is furthest behind
        self.place = (task_position, 0, BACKWARD)
        self.inputs: dict[str, Any] = {}
        self.seed = 0
        self.loss: Tensor | None = None
        self.answer: Any = None
        self.error: Exception | None = None
        self.is_served = False

    def __call__(self, **inputs: Any) -> Any:
        """The model's output for a batch, of which the families read the logits alone."""
        self.place = (self.place[0], self.place[1] + 1, FORWARD)
        self.inputs = inputs
        # a step seeds the generator right before; until the group computes, others may do so too
        self.seed = torch.initial_seed()
        return SimpleNamespace(logits=self.meeting.wait_for(self))

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this sequence's loss to those of its parameters."""
        self.place = (self.place[0], self.place[1], BACKWARD)
        self.loss = loss
        self.meeting.wait_for(self)
        self.loss = None


class Meeting:
    """Where the threads of a group wait for each other. Who holds `turn` runs; to wait is to give it up."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.device = device
        self.turn = threading.Condition()
        self.present = set(range(size))
        self.seats: dict[int, Seat] = {}
        self.waiting: dict[int, Seat] = {}
        # the frozen weights that all models share, by name
        self.frozen: dict[str, Tensor] = {}
        self.is_stopped = False
        self._seats: list[Seat] = []
        self._group: LoraGroup | None = None

    def wait_for(self, seat: Seat) -> Any:
        """What the group computes for a sequence, once all that run have come here and those further behind are served.

        Raises what computing raised, on all that it was computed for.
        """
        seat.is_served = False
        seat.error = None
        self.waiting[seat.number] = seat
        while not seat.is_served:
            if self.is_stopped:
                raise KeyboardInterrupt
            # the last to come computes; where one has left meanwhile, whoever wakes up first
            if len(self.waiting) == len(self.present):
                self._serve()
            else:
                self.turn.wait()
        answer = seat.answer
        seat.answer = None
        if seat.error is not None:
            raise seat.error
        return answer

    def leave(self, number: int) -> None:
        """Nobody waits for this sequence any more."""
        self.present.discard(number)
        self.waiting.pop(number, None)
        self._forget_group()
        self.turn.notify_all()

    def stop(self) -> None:
        """End all threads where they wait next."""
        with self.turn:
            self.is_stopped = True
            self.turn.notify_all()

    def _serve(self) -> None:
        """Compute for those that are furthest behind: one pass for all of them."""
        behind = min(seat.place for seat in self.waiting.values())
        served = []
        # always in the same order, whoever came first: a group of the same sequences is computed alike
        for number in sorted(self.waiting):
            if self.waiting[number].place == behind:
                served.append(self.waiting.pop(number))
        try:
            if behind[2] == FORWARD:
                self._forward(served)
            else:
                _backward(served)
        except Exception as error:
            self._forget_group()
            for seat in served:
                seat.error = error
        for seat in served:
            seat.is_served = True
        self.turn.notify_all()

    def _forward(self, seats: list[Seat]) -> None:
        if self._group is None or seats != self._seats:
            self._seats = seats
            self._group = LoraGroup([seat.model for seat in seats])
        seed_generators(self.device, seats[0].seed)
        for seat, logits in zip(seats, self._group.logits(seats[0].inputs), strict=True):
            seat.answer = logits

    def _forget_group(self) -> None:
        self._group = None
        self._seats = []


def _backward(seats: Sequence[Seat]) -> None:
    """Each parameter is one sequence's alone, so the gradients of the sum are those of each loss."""
    losses = [seat.loss for seat in seats if seat.loss is not None]
    torch.stack(losses).sum().backward()


@dataclass(frozen=True)
class FusedParallel(Parallel):
    """The one worker of a sequence whose steps are computed with those of others."""

    # of one sequence alone, where none is given: the fields before have defaults, so these must
    meeting: Meeting = field(default_factory=lambda: Meeting(1, torch.device("cpu")))
    number: int = 0

    def place(self, model: nn.Module, head: Sequence[nn.Parameter], precision: torch.dtype | None) -> nn.Module:
        model = super().place(model, head, precision)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                # the same values from the same source: one copy of them is enough
                parameter.data = self.meeting.frozen.setdefault(name, parameter.data)
        return model

    def prepare(self, model: nn.Module, exchanged: Sequence[nn.Parameter] = (), task_position: int = 0) -> nn.Module:
        seat = Seat(self.meeting, self.number, model, task_position)
        self.meeting.seats[self.number] = seat
        return cast("nn.Module", seat)

    def backward(self, loss: Tensor) -> None:
        self.meeting.seats[self.number].backward(loss)
