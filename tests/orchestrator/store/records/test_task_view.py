"""What a journal says of one task."""

from __future__ import annotations

import itertools

from orchestrator.store.records.task_view import StepNumbers, TaskView
from tests.orchestrator.store.examples import checkpoint, step


def test_steps_are_known_by_their_numbers_in_whatever_order_they_come() -> None:
    for order in itertools.permutations((1, 2, 3, 5)):
        numbers = StepNumbers()
        for number in order:
            assert number not in numbers
            assert numbers.add(number)
            assert not numbers.add(number)
        assert len(numbers) == 4
        assert [number in numbers for number in range(7)] == [False, True, True, True, False, True, False]
        numbers.add(4)
        assert (len(numbers), numbers.without_gap, numbers.after_gap) == (5, 5, set())


def test_a_task_is_whole_with_its_start_its_state_and_all_steps() -> None:
    task = TaskView(started=1, total_steps=2, checkpoint=checkpoint(0))
    task.add_step(2, step(0, 2))
    assert not task.is_whole()
    task.add_step(1, step(0, 1))
    assert task.is_whole()
    assert task.last_step is not None and task.last_step.step == 2
    task.checkpoint = None
    assert not task.is_whole()
