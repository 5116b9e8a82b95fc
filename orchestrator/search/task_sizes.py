"""Whether tuning and evaluation pose the same problem: as many tasks, of the same sizes."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.errors import UserError
from orchestrator.training.cost import epoch_steps
from streams import Stream


class TaskSize(NamedTuple):
    """A task as the scenario counts it: its train examples, and its steps (or, with a budget, the budget's amount)."""

    examples: int
    length: int


def same_scenario(config: RunConfig, tuning: list[Stream], evaluation: list[Stream]) -> tuple[TaskSize, ...]:
    """The size of each task, in order of size; the same for all streams. Raises UserError otherwise.

    Model and batch are the same by construction: both phases have one configuration.
    """
    first = evaluation[0]
    for method in config.methods:
        expected = _scenario(config, method, first)
        for stream in (*evaluation[1:], *tuning):
            _check_scenario(config, stream, _scenario(config, method, stream), first.name, expected)
    return _scenario(config, config.methods[0], first)


def _check_scenario(
    config: RunConfig,
    stream: Stream,
    scenario: tuple[TaskSize, ...],
    expected_name: str,
    expected: tuple[TaskSize, ...],
) -> None:
    refusal = f"search.streams: not the same scenario: stream {stream.name!r} has"
    if len(scenario) != len(expected):
        raise UserError(f"{refusal} {len(scenario)} tasks, {expected_name!r} has {len(expected)}")
    unit = "steps"
    if config.training.budget:
        unit = config.training.budget.unit
    for task, other in zip(scenario, expected, strict=True):
        if task != other:
            raise UserError(
                f"{refusal} a task of {task.examples} train examples ({task.length} {unit}) where {expected_name!r} has "
                f"{other.examples} ({other.length} {unit}); set max_train on both"
            )


def _scenario(config: RunConfig, method: MethodEntry, stream: Stream) -> tuple[TaskSize, ...]:
    try:
        training = config.training_on(method, stream)
    except ValueError as error:
        raise UserError(str(error)) from error
    sizes = []
    for task in stream.tasks:
        examples = task.size("train")
        if training.budget:
            length = round(training.budget.amount)
        else:
            length = epoch_steps(training, task.name, examples, training.global_batch)
        sizes.append(TaskSize(examples, length))
    # Two streams may have their tasks in different orders and still pose the same problem.
    return tuple(sorted(sizes))
