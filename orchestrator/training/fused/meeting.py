"""Where the threads of several sequences wait for each other, so that one pass computes the steps of all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from methods.adapters.grouped_lora import LoraGroup
from orchestrator.training.parallel import Parallel
from orchestrator.training.step import seed_generators

FORWARD = 0
BACKWARD = 1


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

    @property
    def goes_on_inside(self) -> bool:
        # in one pass are the same steps of all
        return False

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
