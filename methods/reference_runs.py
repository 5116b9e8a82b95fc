"""Kinds of run: a sequence of tasks, and the reference runs that a method is read beside.

A reference run learns no sequence, so it has nothing to forget: it says what the untrained model scores, what each task
reaches alone, and what all tasks reach when they are trained as one. Everything that is particular to one of them is
said here; whoever else needs to know asks the object.
"""

from __future__ import annotations

from typing import ClassVar


class RunKind:
    """A run that trains the tasks of a stream one after another, each from the state that the one before it left."""

    name: ClassVar[str | None] = None
    # one sentence for the screen
    sentence: ClassVar[str] = ""
    # whether metrics of learning and forgetting (all that compare two states) mean anything
    learns_a_sequence: ClassVar[bool] = True
    trains_anything: ClassVar[bool] = True
    # whether training knows where a task ends, so that settings for one task alone can apply
    has_task_boundaries: ClassVar[bool] = True
    # whether a stream becomes one sequence for each of its tasks
    one_sequence_per_task: ClassVar[bool] = False
    # the place among the runs that say what a task could have reached (intransigence): 0 is asked first, None never
    intransigence_rank: ClassVar[int | None] = None

    def tasks_to_train(self, task_id: int, num_tasks: int) -> range:
        """The tasks whose train splits are trained on when the turn of `task_id` comes; empty where nothing is."""
        return range(task_id, task_id + 1)

    def is_trained(self, task_id: int, num_tasks: int) -> bool:
        """Whether anything is trained when the turn of a task comes."""
        return len(self.tasks_to_train(task_id, num_tasks)) > 0

    def task_position(self, task_id: int) -> int:
        """Which task of the sequence, counted from 0, the method is told that it trains or answers."""
        return task_id

    def schedule_horizon(self, num_tasks: int) -> int:
        """The number of tasks over which the outer schedule of learning rates runs."""
        return num_tasks

    def turn(self, task: str) -> str:
        """What is being trained in the turn of a task, for a message."""
        return f"task {task!r}"

    def refusal(self, tuning: str, trains_by_gradient: bool, per_task_weights: str) -> str:
        """Why this kind of run cannot use a tuning method; empty where it can."""
        return ""


class ReferenceRun(RunKind):
    """A run that learns no sequence: from above or from below, the methods that do are measured by it."""

    name: ClassVar[str]
    learns_a_sequence = False

    def refusal(self, tuning: str, trains_by_gradient: bool, per_task_weights: str) -> str:
        if not trains_by_gradient:
            return f"the reference run {self.name!r} needs a tuning method that trains; {tuning!r} does not"
        return ""


class ZeroShot(ReferenceRun):
    """Trains nothing: the state after every task is the initial model."""

    name = "zero-shot"
    sentence = "the untrained model"
    trains_anything = False

    def tasks_to_train(self, task_id: int, num_tasks: int) -> range:
        return range(0)

    def refusal(self, tuning: str, trains_by_gradient: bool, per_task_weights: str) -> str:
        if tuning != "full":
            return f"zero-shot is the untrained model, to which {tuning!r} adds nothing; tuning: full"
        return super().refusal(tuning, trains_by_gradient, per_task_weights)


class Expert(ReferenceRun):
    """Trains each task alone from the initial model, and answers it with that task's labels: one sequence for each task."""

    name = "expert"
    sentence = "each task trained alone; a classifier's answers are then among its own labels"
    one_sequence_per_task = True
    intransigence_rank = 1


class Joint(ReferenceRun):
    """Trains all tasks as one, in the turn of the last task; until then the state is the initial model.

    To the method it is the first and only task, whatever the stream's length.
    """

    name = "joint"
    sentence = "all tasks trained at once"
    has_task_boundaries = False
    # the paper's own reference (arXiv 1801.10112); experts stand in where it is not in the experiment
    intransigence_rank = 0

    def tasks_to_train(self, task_id: int, num_tasks: int) -> range:
        # in the last turn rather than the first: the scores after the last task are what methods are compared by
        if task_id == num_tasks - 1:
            return range(num_tasks)
        return range(0)

    def task_position(self, task_id: int) -> int:
        return 0

    def schedule_horizon(self, num_tasks: int) -> int:
        return 1

    def turn(self, task: str) -> str:
        return "joint training"

    def refusal(self, tuning: str, trains_by_gradient: bool, per_task_weights: str) -> str:
        if per_task_weights:
            return f"joint training cannot be combined with {tuning!r}: {per_task_weights}"
        return super().refusal(tuning, trains_by_gradient, per_task_weights)


SEQUENTIAL = RunKind()
REFERENCE_RUNS: dict[str, ReferenceRun] = {
    ZeroShot.name: ZeroShot(),
    Expert.name: Expert(),
    Joint.name: Joint(),
}


def run_kind(reference: str | None) -> RunKind:
    """The kind of run that a method's `reference` names; None is a sequence of tasks. Raises KeyError for another name."""
    if reference is None:
        return SEQUENTIAL
    return REFERENCE_RUNS[reference]
