"""Groups whose number of workers follows the cluster: Ray Train's elastic training, with what it needs here beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ResizingState
from ray.train.v2._internal.execution.preemption import _get_draining_nodes
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

from orchestrator.cluster.leaving import LEAVE_SECONDS, ask_to_leave, is_asked_to_leave, take_back

# A group that is started anew takes seconds to start: for a node that comes and goes it is not worth while
RESIZE_SECONDS = 60.0


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer whose number of workers is always one of the given, each of which divides the global batch."""

    def __init__(self, *arguments: Any, sizes: tuple[int, ...], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes = sizes

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        # Ray Train has no public name for the policy; its own would take any number between the fewest and the most
        options["scaling_policy"] = _Policy(self.scaling_config, self.sizes)
        return super()._initialize_and_run_controller(**options)  # type: ignore[misc]  # Train V2 has it


class _Policy(ElasticScalingPolicy):
    """Takes the most workers that there is room for, of the numbers that are allowed."""

    def __init__(self, scaling_config: Any, sizes: tuple[int, ...]) -> None:
        super().__init__(scaling_config)
        self.sizes = sizes

    def _count_possible_workers(self, reserved_resources: dict[str, Any]) -> int:
        staying = dict(reserved_resources)
        # Ray counts on nodes that are about to leave, though it starts nothing there
        for node in _get_draining_nodes():
            staying.pop(node, None)
        return largest_size(self.sizes, super()._count_possible_workers(staying))


def largest_size(sizes: tuple[int, ...], possible: int) -> int:
    """The largest of the allowed numbers of workers that is possible; 0 where none is."""
    largest = 0
    for size in sizes:
        if largest < size <= possible:
            largest = size
    return largest


class LeaveBeforeResize(ControllerCallback):
    """Has the workers of a group write what they have before Ray Train ends them to start another number of them."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        if not isinstance(current_state, ResizingState):
            return
        ask_to_leave(self.file)
        ends = time.monotonic() + LEAVE_SECONDS
        # the first worker takes it back when all have left
        while is_asked_to_leave(self.file) and time.monotonic() < ends:
            time.sleep(0.2)
        # the next workers are not asked
        take_back(self.file)
