"""What follows from a sequence's journal: its tasks, scores and status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import singledispatchmethod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.running import Rows
from orchestrator.store.events import (
    Attempt,
    CheckpointCorrupt,
    CheckpointSaved,
    Measured,
    PointScored,
    ProbeComputed,
    ProgressSaved,
    ReferenceScored,
    ScoreComputed,
    ScoringFailed,
    SequenceFailed,
    SequenceFinished,
    SequenceStarted,
    Step,
    SystemSample,
    TaskStarted,
)
from orchestrator.store.journal import DamagedLine, Tail, journal_folder, step_numbers
from orchestrator.store.records.event import Event
from orchestrator.store.records.task_view import TaskView


@dataclass
class View:
    """A sequence as its journal tells it. Facts count once: of two events on one fact the first stands.

    `scores[tasks_seen, task_id]` is the score on a task of the state after so many tasks. `damaged` are the lines that were
    left out. `failed` is the event that ended it, while it is its last word. `attempts` are those since it last made progress,
    which `progress` counts; `last_attempt` may have made some.
    """

    id: str
    tasks: tuple[str, ...] = ()
    # whether each state is scored on all tasks, or on those alone that it has seen
    rows: Rows = "all"
    # the benchmarks of base abilities that each state takes
    probe_names: tuple[str, ...] = ()
    start: SequenceStarted | None = None
    by_task: dict[int, TaskView] = field(default_factory=dict)
    scores: dict[tuple[int, int], ScoreComputed] = field(default_factory=dict)
    # scores amid training, by (task, step, scored task)
    points: dict[tuple[int, int, int], PointScored] = field(default_factory=dict)
    # by tasks seen and the benchmark's name
    probes: dict[tuple[int, str], ProbeComputed] = field(default_factory=dict)
    reference: ReferenceScored | None = None
    measured: Measured | None = None
    failure: str = ""
    failed: SequenceFailed | None = None
    # by tasks seen, the last of each; what was scored later is among them still (see `unscored`)
    scoring_failures: dict[int, ScoringFailed] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    last_attempt: Attempt = field(default_factory=Attempt)
    progress: int = 0
    damaged: list[DamagedLine] = field(default_factory=list)
    # the last word of its workers, who may leave the scoring to others
    last_word: Literal["waiting", "running", "finished", "failed"] = "waiting"

    @property
    def status(self) -> str:
        """waiting, running, failed, finished; or incomplete: its workers are done with it, but scores are missing."""
        if self.last_word == "finished" and not self.is_scored():
            return "incomplete"
        return self.last_word

    @property
    def has_ended(self) -> bool:
        """Whether its workers are done with it."""
        return self.last_word in ("finished", "failed")

    def read(self, tail: Tail) -> None:
        """Take in what a journal has that is new."""
        add = self.add  # taken once: the method is made anew each time that it is asked for
        for path, line in tail.new_lines():
            # nearly all lines are steps', of which an event each would take most of the time and of the memory
            step = step_numbers(line)
            if step is not None:
                self._task(step[0]).add_step(step[1], line)
            elif (event := tail.parse(path, line)) is not None:
                add(event)
        self.damaged = list(tail.damaged)

    @singledispatchmethod
    def add(self, event: Event) -> bool:
        """Take in one event; False if it says nothing new. Raises TypeError for an event that no sequence has."""
        raise TypeError(f"event {event.name!r} is none of a sequence")

    @add.register(SystemSample)
    @add.register(CheckpointCorrupt)
    def _(self, event: Event) -> bool:
        return True  # always news, and nothing follows from it

    @add.register
    def _(self, event: ScoringFailed) -> bool:
        self.scoring_failures[event.tasks_seen] = event
        return True

    @add.register
    def _(self, event: SequenceStarted) -> bool:
        # a new attempt takes back how the one before it ended
        self.last_word = "running"
        self.failure = ""
        self.failed = None
        self.tasks = event.tasks
        # absent from journals that are older than this setting
        self.rows = event.sequence.get("evaluation", {}).get("rows", "all")
        self.probe_names = tuple(event.sequence.get("probe_names", ()))
        self.last_attempt = Attempt(event.run, event.attempt)
        self.attempts.append(self.last_attempt)
        if self.start is None:
            self.start = event
        return True

    @add.register
    def _(self, event: TaskStarted) -> bool:
        task = self._task(event.task_id)
        task.total_steps = event.steps
        if task.started is not None:
            return False
        task.started = event.time
        return True

    @add.register
    def _(self, event: Step) -> bool:
        return self._task(event.task_id).add_step(event.step, event)

    @add.register
    def _(self, event: PointScored) -> bool:
        position = (event.task_id, event.step, event.scored_id)
        if position in self.points:
            return False
        self.points[position] = event
        return True

    @add.register
    def _(self, event: CheckpointSaved) -> bool:
        task = self._task(event.task_id)
        if task.checkpoint is not None:
            return False
        task.checkpoint = event
        self._make_progress()
        return True

    @add.register
    def _(self, event: ProgressSaved) -> bool:
        self._make_progress()
        return True  # always news: the next one is further on

    @add.register
    def _(self, event: ScoreComputed) -> bool:
        position = (event.tasks_seen, event.task_id)
        if position in self.scores:
            return False
        self.scores[position] = event
        return True

    @add.register
    def _(self, event: ProbeComputed) -> bool:
        position = (event.tasks_seen, event.probe)
        if position in self.probes:
            return False
        self.probes[position] = event
        return True

    @add.register
    def _(self, event: ReferenceScored) -> bool:
        if self.reference is not None and event.says_the_same_as(self.reference):
            return False
        # the one fact that may change: an experiment may get a reference run later, or another one
        self.reference = event
        return True

    @add.register
    def _(self, event: Measured) -> bool:
        # it may change as the reference may
        if self.measured is not None and event.says_the_same_as(self.measured):
            return False
        self.measured = event
        return True

    @add.register
    def _(self, event: SequenceFinished) -> bool:
        is_news = self.last_word != "finished"
        self.last_word = "finished"
        return is_news

    @add.register
    def _(self, event: SequenceFailed) -> bool:
        is_news = self.last_word != "failed"
        self.last_word = "failed"
        self.failure = event.reason
        self.failed = event
        return is_news

    def _make_progress(self) -> None:
        """Count what an attempt leaves to the next one: a sequence that goes on gets to its end, however often it is stopped."""
        self.progress += 1
        self.attempts.clear()

    def _task(self, task_id: int) -> TaskView:
        if task_id not in self.by_task:
            self.by_task[task_id] = TaskView()
        return self.by_task[task_id]

    def matrix(self, value: Literal["score", "score_options"] = "score") -> NDArray[np.float64]:
        """Scores, [T+1, T]: the first index is `tasks_seen` (0: before training); NaN where there is none yet."""
        full = np.full((len(self.tasks) + 1, len(self.tasks)), np.nan)
        for (tasks_seen, task_id), event in self.scores.items():
            number = getattr(event, value)
            if number is not None:
                full[tasks_seen, task_id] = number
        return full

    @property
    def seconds(self) -> float:
        """Training time of all its tasks, also of those that another sequence trained."""
        total = 0.0
        for checkpoint in self._checkpoints():
            total += checkpoint.seconds
        return total

    def usage(self, unit: str) -> int | float | None:
        """Steps, tokens or flops of all its tasks, as `seconds`; None where a checkpoint does not say."""
        amounts: list[int | float] = []
        for checkpoint in self._checkpoints():
            if unit not in checkpoint.usage:
                return None
            amounts.append(checkpoint.usage[unit])
        return sum(amounts) if amounts else None

    def makers_versions(self) -> list[dict[str, str]]:
        """The versions of the libraries that trained each of its states."""
        # a copy: a screen's thread asks while the journal is read
        return [task.checkpoint.versions for task in list(self.by_task.values()) if task.checkpoint]

    def _checkpoints(self) -> list[CheckpointSaved]:
        return [task.checkpoint for task in self.by_task.values() if task.checkpoint]

    def has_all_scores(self, tasks_seen: int) -> bool:
        """Whether the state after so many tasks has every score that it is to have; False while the tasks are not known."""
        if not self.tasks:
            return False
        num_scores = tasks_seen if self.rows == "seen" else len(self.tasks)
        for task_id in range(num_scores):
            if (tasks_seen, task_id) not in self.scores:
                return False
        return all((tasks_seen, probe) in self.probes for probe in self.probe_names)

    def knows(self, event: ScoreComputed | ProbeComputed) -> bool:
        """Whether a score or a benchmark's result is known already."""
        if isinstance(event, ProbeComputed):
            return (event.tasks_seen, event.probe) in self.probes
        return (event.tasks_seen, event.task_id) in self.scores

    def is_scored(self) -> bool:
        """Whether no score is missing."""
        return all(self.has_all_scores(tasks_seen) for tasks_seen in range(len(self.tasks) + 1))

    def unscored(self) -> list[ScoringFailed]:
        """Why states could not be scored that lack a score still."""
        failures = []
        for tasks_seen, failure in sorted(self.scoring_failures.items()):
            if not self.has_all_scores(tasks_seen):
                failures.append(failure)
        return failures

    def is_whole(self) -> bool:
        """Whether its start, every task with all its steps, and every score is known."""
        if self.start is None or not self.is_scored():
            return False
        return all(self.by_task.get(task_id, TaskView()).is_whole() for task_id in range(len(self.tasks)))

    def test_sizes(self) -> list[int]:
        """The number of test examples of each task, from its scores; 0 where it has none."""
        sizes = [0] * len(self.tasks)
        for (_, task_id), event in self.scores.items():
            # whichever state it was: all of them are scored on the same split
            sizes[task_id] = event.n
        return sizes


def read_view(out: str | Path, sequence_id: str) -> View:
    """What the whole journal of a sequence says."""
    view = View(sequence_id)
    view.read(Tail(journal_folder(out, sequence_id)))
    return view


def fold(sequence_id: str, events: Iterable[Event]) -> View:
    """What some events say of a sequence."""
    view = View(sequence_id)
    for event in events:
        view.add(event)
    return view
