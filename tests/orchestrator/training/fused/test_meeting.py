"""Who is furthest behind is computed first, those at one place together; and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.training.fused.meeting import FusedParallel, Meeting

CPU = torch.device("cpu")

calls: list[int] = []


class Recorded(nn.Module):
    """Answers with its weight times the input, and notes how many rows it read."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.linear.weight, weight)

    def forward(self, x: Tensor) -> Any:
        calls.append(len(x))
        return SimpleNamespace(logits=self.linear(x))


def test_who_is_behind_comes_first_and_equals_are_computed_together() -> None:
    """One sequence makes two passes of task 0 and one of task 1, the other one pass of task 1 alone."""
    calls.clear()
    meeting = Meeting(2, CPU)
    members = [FusedParallel(meeting=meeting, number=number) for number in range(2)]
    models = [Recorded(2.0), Recorded(3.0)]
    answers: list[list[float]] = [[], []]

    def go(number: int, tasks: Sequence[int]) -> None:
        with meeting.turn:
            try:
                for task in tasks:
                    seat = members[number].prepare(models[number], task_position=task)
                    logits = seat(x=torch.tensor([[float(task + 1)]])).logits
                    answers[number].append(logits.item())
                    members[number].backward(logits.sum())
            finally:
                meeting.leave(number)

    with ThreadPoolExecutor(2) as threads:
        later = threads.submit(go, 1, [1])
        first = threads.submit(go, 0, [0, 1])
        later.result(timeout=20)
        first.result(timeout=20)
    # alone in task 0, where it reads 1; then both, where they read 2
    assert calls == [1, 2]
    assert answers == [[2.0, 4.0], [6.0]]
    # the inputs that each has read
    assert models[0].linear.weight.grad is not None and models[1].linear.weight.grad is not None
    assert models[0].linear.weight.grad.item() == 1.0 + 2.0
    assert models[1].linear.weight.grad.item() == 2.0


def test_an_error_reaches_all_that_were_computed_together() -> None:
    meeting = Meeting(2, CPU)

    def go(number: int) -> None:
        with meeting.turn:
            try:
                FusedParallel(meeting=meeting, number=number).prepare(Recorded(1.0))(x=torch.ones(1, 7))
            finally:
                meeting.leave(number)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(go, number) for number in range(2)]
        for thread in running:
            with pytest.raises(RuntimeError, match="size"):
                thread.result(timeout=20)


def test_who_waits_ends_when_the_process_is_interrupted() -> None:
    meeting = Meeting(2, CPU)

    def go() -> None:
        with meeting.turn:
            FusedParallel(meeting=meeting, number=0).prepare(Recorded(1.0))(x=torch.ones(1, 1))

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(go)
        with pytest.raises(TimeoutError):
            running.result(timeout=0.2)
        meeting.stop()
        with pytest.raises(KeyboardInterrupt):
            running.result(timeout=20)


def test_models_share_one_copy_of_what_is_frozen() -> None:
    meeting = Meeting(2, CPU)
    models = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)]
    for number, model in enumerate(models):
        model[0].requires_grad_(False)
        FusedParallel(meeting=meeting, number=number).place(model, [], None)
    assert models[0][0].weight.data_ptr() == models[1][0].weight.data_ptr()
    assert models[0][1].weight.data_ptr() != models[1][1].weight.data_ptr()
