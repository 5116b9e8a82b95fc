"""The cost: what a method computes beside training's own pass, for counting FLOPs. It changes nothing that is computed."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from methods.shared.tensors import trainable


class ExtraPasses(NamedTuple):
    """Passes over a global batch: forward alone, and forward and backward as training's own."""

    forward: float = 0.0
    training: float = 0.0


class Cost:
    """Says what a method costs. A method without one costs what plain training of its weights does."""

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        """What it computes a step beside training's own pass, in passes over a global batch of `size`.

        What runs once a task is not counted.
        """
        # floats: a pass that runs in some steps only counts by how often it runs
        return ExtraPasses()

    def added_tokens(self, task_id: int) -> int:
        """How many vectors a tuning method puts among the tokens of each input while a task is trained."""
        return 0

    def trains(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that a tuning method lets the next task move, by name, as they are before `before_task`."""
        return dict(trainable(model))

    def unread(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of a tuning method that no token reads while the next task is trained, by name."""
        return {}
