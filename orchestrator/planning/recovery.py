"""What a damaged journal no longer says, told again by the store and the plan.

Scores come from the store's score files, steps and checkpoints from the checkpoints' histories, a sequence's tasks from its
plan. `run_sequence` appends what is missing to the journal; a report recovers it in memory and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import (
    CheckpointSaved,
    ProbeComputed,
    ScoreComputed,
    SequenceFinished,
    SequenceStarted,
    Step,
    TaskStarted,
    parse_event,
)
from orchestrator.store.records.event import Event, now_ms
from orchestrator.store.records.task_view import TaskView
from orchestrator.store.view import View, read_view


def recovered_view(sequence: SequencePlan) -> View:
    """What a sequence's journal says, with what was lost of it. Nothing is written."""
    view = read_view(sequence.out, sequence.id)
    add_lost(sequence, view)
    return view


def add_lost(sequence: SequencePlan, view: View) -> list[Event]:
    """Complete a view by what its journal lost and the plan and the store know. Returns what was added."""
    added: list[Event] = []
    if has_lost_facts(view):
        added += _add_missing(sequence, view)
    # scores amid training are no part of what makes a journal whole: some states are found without them
    elif sequence.points_keys and view.start is not None:
        added += _add_points(sequence, view)
    # The last line may be the one that was lost, of a journal that lacks nothing else
    if view.last_word == "running" and view.is_whole():
        added.append(SequenceFinished())
        view.add(added[-1])
    return added


def _add_missing(sequence: SequencePlan, view: View) -> list[Event]:
    if view.start is None:
        # not added as an event: it came first, and must not take back a later event's word on the status
        view.start = _start_of(sequence)
        view.tasks = sequence.tasks
        view.rows = sequence.evaluation.rows
        view.probe_names = sequence.probe_names
        if view.last_word == "waiting":
            view.last_word = "running"
    added = []
    for event in missing_events(sequence, view, Store(folder_at(sequence.out))):
        if view.add(event):
            added.append(event)
    return added


def _add_points(sequence: SequencePlan, view: View) -> list[Event]:
    """Add the scores amid the training of tasks that were trained to their end."""
    added = []
    store = Store(folder_at(sequence.out))
    for task_id, task in sorted(view.by_task.items()):
        if task.checkpoint is None:
            continue
        for event in point_events(sequence, task_id, store):
            if view.add(event):
                added.append(event)
    return added


def has_lost_facts(view: View) -> bool:
    """Whether a journal once said more than it does now. What was never said is not taken from the store: others share it."""
    if view.is_whole():
        return False
    first_line_lost = view.start is None and bool(view.by_task or view.scores)
    return first_line_lost or bool(view.damaged) or view.last_word == "finished"


def missing_events(sequence: SequencePlan, view: View, store: Store) -> Iterator[Event]:
    """The facts about tasks and scores that the store holds and a view lacks. What neither has is computed again by a run."""
    for task_id in range(len(sequence.tasks)):
        task = view.by_task.get(task_id, TaskView())
        if not task.is_whole():
            yield from _task_events(sequence, task_id, task, store)
        yield from point_events(sequence, task_id, store)
    for tasks_seen, keys in enumerate(sequence.score_keys):
        for task_id in sequence.tasks_to_score(tasks_seen):
            if (tasks_seen, task_id) in view.scores:
                continue
            key = keys[task_id]
            record = store.load_score(key)
            if record is not None:
                name = sequence.tasks[task_id]
                yield ScoreComputed(tasks_seen=tasks_seen, task_id=task_id, task=name, key=key, **record)
    for tasks_seen, keys in enumerate(sequence.probe_keys):
        for name, key in zip(sequence.probe_names, keys, strict=True):
            record = None
            if (tasks_seen, name) not in view.probes:
                record = store.load_score(key)
            if record is not None:
                yield ProbeComputed(tasks_seen=tasks_seen, probe=name, key=key, **record)


def point_events(sequence: SequencePlan, task_id: int, store: Store) -> list[Event]:
    """The scores amid the training of a task, if any were asked for; none where its state was trained without them."""
    if not sequence.points_keys:
        return []
    record = store.load_score(sequence.points_keys[task_id])
    points: list[Event] = []
    for values in (record or {"points": ()})["points"]:
        # by the name that the task has in this sequence: the same content may come under another one
        points.append(parse_event({**values, "scored_task": sequence.tasks[values["scored_id"]]}))
    return points


def save_points(sequence: SequencePlan, task_id: int, points: Sequence[Event], store: Store) -> None:
    """Keep the scores amid the training of a task for those who find its state."""
    store.save_score(sequence.points_keys[task_id], {"points": [point.to_json() for point in points]})


def checkpoint_event(sequence: SequencePlan, task_id: int, store: Store, time: int | None = None) -> CheckpointSaved:
    """The event that says where the state after a task is, and what it took."""
    key = sequence.keys[task_id + 1]
    history = store.history(key)
    return CheckpointSaved(
        time=time or now_ms(),
        task_id=task_id,
        task=sequence.tasks[task_id],
        key=key,
        path=str(store.path(key)),
        bytes=store.size(key),
        seconds=history["seconds"],
        usage=history.get("usage", {}),
        # asked of the checkpoint, not of this process: a sequence that was stopped trained its tasks itself all the same
        reused=store.maker(key) != sequence.id,
        diagnostics=history.get("diagnostics", {}),
        versions=store.versions(key),
    )


def step_events(sequence: SequencePlan, task_id: int, store: Store) -> list[Step]:
    """The steps in which a stored state was trained."""
    steps: list[Step] = []
    for values in store.history(sequence.keys[task_id + 1])["steps"]:
        step = parse_event(values)
        assert isinstance(step, Step)
        steps.append(step)
    return steps


def _task_events(sequence: SequencePlan, task_id: int, task: TaskView, store: Store) -> Iterator[Event]:
    key = sequence.keys[task_id + 1]
    # how it went is known of a state that was pruned too
    if not store.has_history(key):
        return
    steps = step_events(sequence, task_id, store)
    saved = checkpoint_event(sequence, task_id, store, steps[-1].time if steps else None)
    if task.started is None:
        begun = steps[0].time if steps else saved.time
        name = sequence.tasks[task_id]
        yield TaskStarted(time=begun, task_id=task_id, task=name, steps=len(steps), reused=saved.reused)
    for step in steps:
        if step.step not in task.steps:
            yield step
    if task.checkpoint is None:
        yield saved


def _start_of(sequence: SequencePlan) -> SequenceStarted:
    """The first line as far as the plan knows it; the data and the machine it does not know."""
    return SequenceStarted(
        id=sequence.id,
        tasks=sequence.tasks,
        sequence=sequence.model_dump(mode="json", exclude={"score_keys", "points_keys", "probe_keys"}),
        data=[],
        workers=0,
        device="unknown",
        versions={},
        git_commit=None,
        machine="unknown",
    )
