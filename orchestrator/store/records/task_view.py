"""What a journal says of one task and of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.store.events import CheckpointSaved, Step, parse_event
from orchestrator.store.integrity import unseal


@dataclass
class StepNumbers:
    """Which steps are known, from 1 on. Of steps that came in their order only the last number is kept."""

    without_gap: int = 0
    after_gap: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return self.without_gap + len(self.after_gap)

    def __contains__(self, number: int) -> bool:
        return 0 < number <= self.without_gap or number in self.after_gap

    def add(self, number: int) -> bool:
        """Note a step; False if it is known."""
        if number != self.without_gap + 1:
            if number in self:
                return False
            self.after_gap.add(number)
            return True
        self.without_gap = number
        # lines that were damaged, and are told again by the store, fill their gap
        while self.without_gap + 1 in self.after_gap:
            self.without_gap += 1
            self.after_gap.remove(self.without_gap)
        return True


@dataclass
class TaskView:
    """What the journal says of one task. Of its steps only the numbers stay in memory, and the one that is furthest on."""

    started: int | None = None
    steps: StepNumbers = field(default_factory=StepNumbers)
    total_steps: int = 0
    checkpoint: CheckpointSaved | None = None
    _last_number: int = 0
    # a line as it was read: of many steps hardly one is ever looked at
    _last_step: Step | bytes | None = None

    def add_step(self, number: int, step: Step | bytes) -> bool:
        """Take in a step, as an event or as its sound line; False if it is known, as where an interrupted task repeats it."""
        if not self.steps.add(number):
            return False
        if number > self._last_number:
            self._last_number = number
            self._last_step = step
        return True

    @property
    def last_step(self) -> Step | None:
        """The step that is furthest on."""
        if isinstance(self._last_step, bytes):
            step = parse_event(unseal(self._last_step))
            assert isinstance(step, Step)
            return step
        return self._last_step

    def is_whole(self) -> bool:
        """Whether it was trained to its end, and no step of it is missing."""
        return self.started is not None and self.checkpoint is not None and len(self.steps) == self.total_steps
