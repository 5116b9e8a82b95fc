"""The MLflow runs of a sequence: a parent, a child for each task, a logged model for each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, singledispatchmethod
from typing import Any

import numpy as np

from methods import RunKind, run_kind
from orchestrator.evaluation.view_metrics import scorers_of, stability_of, summaries_of
from orchestrator.store.events import (
    CheckpointSaved,
    Measured,
    PointScored,
    ProbeComputed,
    ReferenceScored,
    ScoreComputed,
    SequenceFailed,
    SequenceFinished,
    SequenceStarted,
    Step,
    SystemSample,
    TaskStarted,
)
from orchestrator.store.identities import SEQUENCE_TAG, WHOLE_SEQUENCE, RunIdentity
from orchestrator.store.journal import ResumableTail, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.view import View
from orchestrator.tracking.figures import log_curves, log_matrix
from orchestrator.tracking.metric_batches import MetricBatches
from orchestrator.tracking.names import probes_by_key, scores_by_key
from orchestrator.tracking.notes import NoNotes, Note, Notes
from orchestrator.tracking.runs import Runs
from orchestrator.tracking.sequence_names import run_tags, sequence_name
from orchestrator.tracking.summaries import summaries_at_last

STEP_METRICS = ("loss", "lr", "grad_norm", "tokens_per_s")

# How often the end of what has arrived is noted: after a full call of a task's steps. MLflow takes points that it has already
# several times slower than new ones, so that a short start which sends many of them again would not get further than the last.
EVENTS_PER_NOTE = 250

# About so many points of each task are in the parent's curves too
CURVE_POINTS = 20


class SequenceRuns:
    """Copies the journal of one sequence into its parent run and its tasks' runs."""

    def __init__(self, runs: Runs, out: str, sequence_id: str, notes: Notes | NoNotes) -> None:
        self.runs = runs
        self.batches = MetricBatches(runs)
        self.notes = notes
        self.view = View(sequence_id)
        self.tail = ResumableTail(journal_folder(out, sequence_id))
        note = notes.take_up(sequence_id, self.tail)
        self.run_ids = {int(task_id): run_id for task_id, run_id in note.runs.items()}
        self.model_ids = {int(task_id): model_id for task_id, model_id in note.models.items()}
        self.num_samples = 0
        self.copied_bytes = sum(self.tail.offsets.values())
        # of a journal that is copied already nothing is read before it grows
        self._has_read_old = False
        self._early: list[Event] = []

    def pull(self) -> bool:
        """Copy what the journal has that is new; says whether there was anything."""
        if not self.tail.has_news():
            return False
        # between two pulls another process may have copied the same sequence
        self.__dict__.pop("_is_new", None)
        if not self._has_read_old:
            self._read_old()
        for number, event in enumerate(self.tail.new_events(), start=1):
            if self.view.add(event):
                self._copy_in_order(event)
            # of a long journal, what arrived is not sent again by the next start
            if number % EVENTS_PER_NOTE == 0:
                self._keep_note()
        self._keep_note()
        return True

    def _copy_in_order(self, event: Event) -> None:
        # where the first line was damaged, the start comes later; no run can be described before it
        if self.view.start is None:
            self._early.append(event)
            return
        self._copy(event)
        for early_event in self._early:
            self._copy(early_event)
        self._early.clear()

    def _read_old(self) -> None:
        """Take in what an earlier process has copied."""
        for event in self.tail.old_events():
            if self.view.add(event) and isinstance(event, SystemSample):
                self.num_samples += 1
        self._has_read_old = True

    def _keep_note(self) -> None:
        """Send what waits, and note that all that was read has arrived."""
        self.batches.flush()
        if self._early:
            return
        runs = {str(task_id): run_id for task_id, run_id in self.run_ids.items()}
        models = {str(task_id): model_id for task_id, model_id in self.model_ids.items()}
        self.notes.keep(self.view.id, Note(self.tail.digests(), runs, models))
        self.copied_bytes = sum(self.tail.offsets.values())

    def _log(
        self, task_id: int, values: Mapping[str, float | None], time: int, step: int, of_model: bool = False
    ) -> None:
        """Log metrics to a task's run or the parent; `of_model`: also to the logged model of the task's checkpoint."""
        numbers: dict[str, float] = {}
        for key, value in values.items():
            # NaN, which is not itself, says that a metric does not apply
            if value is not None and value == value:
                numbers[key] = value
        if numbers:
            model_id = self.model_ids.get(task_id) if of_model else None
            self.batches.add(self._run(task_id), numbers, time, step, model_id)

    @property
    def _start(self) -> SequenceStarted:
        assert self.view.start is not None
        return self.view.start

    @property
    def _kind(self) -> RunKind:
        return run_kind(self._start.sequence["method"].get("reference"))

    def _run(self, task_id: int) -> str:
        """The run of a task, or the parent run: found by its identity, or else created."""
        if task_id not in self.run_ids:
            tags = RunIdentity(self.view.id, task_id).tags()
            found = None if self._is_new else self.runs.find(tags)
            self.run_ids[task_id] = found or self._create_run(task_id, tags)
        return self.run_ids[task_id]

    @cached_property
    def _is_new(self) -> bool:
        """Whether the store had no run of the sequence when it was first asked: then none has to be looked for."""
        return self.runs.find({SEQUENCE_TAG: self.view.id}) is None

    def _create_run(self, task_id: int, tags: Mapping[str, str]) -> str:
        start = self._start
        all_tags = {**tags, **run_tags(start)}
        if task_id == WHOLE_SEQUENCE:
            parent = self.runs.last_of(start.sequence.get("parents", ()), start.time)
            return self.runs.create(all_tags, sequence_name(start.sequence), parent, start.time)
        began = start.time
        task = self.view.by_task.get(task_id)
        if task and task.started:
            began = task.started
        name = f"{task_id + 1} {self.view.tasks[task_id]}"
        return self.runs.create(all_tags, name, self._run(WHOLE_SEQUENCE), began)

    @singledispatchmethod
    def _copy(self, event: Event) -> None:
        """Copy one event. Those of no class below have no record in MLflow."""

    @_copy.register
    def _(self, event: SequenceStarted) -> None:
        run_id = self._run(WHOLE_SEQUENCE)
        self.runs.begin(run_id)
        self.runs.describe(run_id, event)

    @_copy.register
    def _(self, event: TaskStarted) -> None:
        self.runs.set_tag(self._run(event.task_id), "orchestrator.reused", str(event.reused).lower())

    @_copy.register
    def _(self, event: Step) -> None:
        values = {name: getattr(event, name) for name in STEP_METRICS}
        self._log(event.task_id, values, event.time, event.step)
        # every step is in the task's run; the curve over all tasks needs no more points than an eye can tell apart
        total = self.view.by_task[event.task_id].total_steps
        if event.step == total or event.step % max(1, total // CURVE_POINTS) == 0:
            self._log(WHOLE_SEQUENCE, values, event.time, self._steps_before(event.task_id) + event.step)

    @_copy.register
    def _(self, event: PointScored) -> None:
        values = {f"during/{event.scored_task}": event.score}
        self._log(event.task_id, values, event.time, event.step)
        self._log(WHOLE_SEQUENCE, values, event.time, self._steps_before(event.task_id) + event.step)

    def _steps_before(self, task_id: int) -> int:
        """The number of steps of the tasks before, so that the parent's curves run on."""
        steps = 0
        for earlier_id, task in self.view.by_task.items():
            if earlier_id < task_id:
                # where the line that states the number was damaged, the steps themselves are counted
                steps += max(task.total_steps, len(task.steps))
        return steps

    @_copy.register
    def _(self, event: SystemSample) -> None:
        values: dict[str, float | None] = {}
        for key, value in event.values.items():
            values[f"system/{key}"] = value
        self._log(WHOLE_SEQUENCE, values, event.time, self.num_samples)
        self.num_samples += 1

    @_copy.register
    def _(self, event: CheckpointSaved) -> None:
        run_id = self._run(event.task_id)
        self.model_ids[event.task_id] = self.runs.add_model(
            run_id, self.view.id, self._start.sequence, event, self._is_new
        )
        cost: dict[str, float | None] = {"train_seconds": event.seconds}
        for unit, amount in event.usage.items():
            cost[f"train_{unit}"] = amount
        self._log(WHOLE_SEQUENCE, cost, event.time, event.task_id + 1)
        for name, value in event.diagnostics.items():
            self._copy_diagnostic(event, name, value)
        if self.view.points:
            stability = stability_of(self.view, self._kind, event.task_id + 1)
            self._log(WHOLE_SEQUENCE, stability, event.time, event.task_id + 1)
            if self.runs.takes_files:
                log_curves(self.runs.client, self._run(WHOLE_SEQUENCE), self.view)
        self.runs.end(run_id, "FINISHED", event.time)

    def _copy_diagnostic(self, event: CheckpointSaved, name: str, value: Any) -> None:
        """A number: a metric of the task. A list: over its layers, with the mean in the parent. A matrix: a plot too."""
        tasks_seen = event.task_id + 1
        if not isinstance(value, list):
            self._log(event.task_id, {name: value}, event.time, tasks_seen)
            self._log(WHOLE_SEQUENCE, {name: value}, event.time, tasks_seen)
        elif value and not isinstance(value[0], list):
            for layer, number in enumerate(value):
                self._log(event.task_id, {name: number}, event.time, layer)
            self._log(WHOLE_SEQUENCE, {name: sum(value) / len(value)}, event.time, tasks_seen)
        elif value and self.runs.takes_files:
            tasks = self.view.tasks[: len(value)]
            log_matrix(self.runs.client, self._run(WHOLE_SEQUENCE), name, value, tasks, tasks_seen)

    @_copy.register
    def _(self, event: ScoreComputed) -> None:
        values = scores_by_key(event, scorers_of(self.view)[event.task_id])
        self._log(WHOLE_SEQUENCE, values, event.time, event.tasks_seen)
        if event.tasks_seen > 0:
            self._log(event.tasks_seen - 1, values, event.time, event.tasks_seen, of_model=True)
        if not self._is_scored_until(event.tasks_seen):
            return
        # a state that was scored late completes the summaries of the states after it too
        for tasks_seen in range(max(event.tasks_seen, 1), len(self.view.tasks) + 1):
            if not self.view.has_all_scores(tasks_seen):
                return
            self._log_summary(tasks_seen)

    def _is_scored_until(self, tasks_seen: int) -> bool:
        for earlier in range(tasks_seen + 1):
            if not self.view.has_all_scores(earlier):
                return False
        return True

    def _log_summary(self, tasks_seen: int) -> None:
        groups = summaries_at_last(self.view, self._kind, tasks_seen)
        for time, values in groups:
            self._log(WHOLE_SEQUENCE, dict(values), time, tasks_seen)
        time, values = groups[0]
        self._log(tasks_seen - 1, {"aa": values["aa"]}, time, tasks_seen, of_model=True)
        if self.view.reference is not None and tasks_seen == len(self.view.tasks):
            self._log_intransigence(self.view.reference)

    @_copy.register
    def _(self, event: ProbeComputed) -> None:
        self._log(WHOLE_SEQUENCE, probes_by_key(event), event.time, event.tasks_seen)
        if event.tasks_seen > 0:
            self._log(event.tasks_seen - 1, probes_by_key(event), event.time, event.tasks_seen, of_model=True)

    @_copy.register
    def _(self, event: ReferenceScored) -> None:
        self.runs.set_tag(self._run(WHOLE_SEQUENCE), "orchestrator.reference_run", event.reference)
        self._log_intransigence(event)

    def _log_intransigence(self, reference: ReferenceScored) -> None:
        # NaN, which is not logged, until the sequence's own scores are there: the two are in no order
        numbers: dict[str, float | None] = {}
        for key, value in summaries_of(self.view, self._kind, reference_T=np.array(reference.scores)).items():
            if key.split("/")[0] == "intransigence":
                numbers[key] = value
        self._log(WHOLE_SEQUENCE, numbers, reference.time, len(self.view.tasks))

    @_copy.register
    def _(self, event: Measured) -> None:
        self._log(WHOLE_SEQUENCE, dict(event.values), event.time, len(self.view.tasks))

    @_copy.register
    def _(self, event: SequenceFinished) -> None:
        self.batches.flush()
        for task_id, run_id in self.run_ids.items():
            task = self.view.by_task.get(task_id)
            # the whole sequence's, and those of tasks whose own last line was damaged
            if task is None or task.checkpoint is None:
                self.runs.end(run_id, "FINISHED", event.time)

    @_copy.register
    def _(self, event: SequenceFailed) -> None:
        self.batches.flush()
        self.runs.set_tag(self._run(WHOLE_SEQUENCE), "orchestrator.failure", event.reason)
        for task_id, run_id in self.run_ids.items():
            task = self.view.by_task.get(task_id)
            # a task that was trained to its end has not failed
            if task is None or task.checkpoint is None:
                self.runs.end(run_id, "FAILED", event.time)
