"""The facts that a journal holds, as typed records: one class for each kind, found by the name in its `event` field.

An event that is read back is checked against its class: an unknown name, a missing field or a value of another type raises
ValueError. Times are in milliseconds since 1970. `identities.py` says which record of MLflow an event belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import (
    RungDecided,
    SearchChosen,
    SearchFinished,
    SearchFrozen,
    SearchStarted,
    TrialEnded,
    TrialProblem,
    TrialReopened,
    TrialSuggested,
)


class Attempt(NamedTuple):
    """One taking up of a sequence, by identities that are drawn at random: the clocks of machines differ.

    `run` is the command's, which may take a sequence up several times. Both are empty where no cluster trains.
    """

    run: str = ""
    id: str = ""


NO_ATTEMPT = Attempt()


class SequenceStarted(Event):
    """A group of workers took up a sequence: the whole configuration, the data and the software.

    `run` and `attempt` say which taking up it was (see `Attempt`).
    """

    name = "sequence_started"
    id: str
    tasks: tuple[str, ...]
    # as plain values: an old journal is read though the classes of a configuration have changed since
    sequence: dict[str, Any]
    data: list[dict[str, Any]]
    workers: int
    device: str
    versions: dict[str, str]
    git_commit: str | None
    machine: str
    # absent from journals that are older than these fields
    run: str = ""
    attempt: str = ""


class TaskStarted(Event):
    """The training of a task began, or its state was found (`reused`)."""

    name = "task_started"
    task_id: int
    task: str
    steps: int
    reused: bool


class Step(Event):
    """One optimizer step, counted from 1 over its task."""

    name = "step"
    task_id: int
    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_s: float


class PointScored(Event):
    """A score amid training: that on some examples of `scored_task` after so many steps (0: before any) of a task."""

    name = "point"
    task_id: int
    step: int
    scored_id: int
    scored_task: str
    score: float
    n: int
    seconds: float


class SystemSample(Event):
    """The load of the machine that trains, under MLflow's names for system metrics."""

    name = "system"
    values: dict[str, int | float]


class CheckpointSaved(Event):
    """The state after a task is in the store. `usage` holds steps, tokens and flops; `seconds` is training time.

    `versions` are those of the libraries that trained it, which a start's need not be.
    """

    name = "checkpoint"
    task_id: int
    task: str
    key: str
    path: str
    bytes: int
    seconds: float
    usage: dict[str, int | float]
    reused: bool
    diagnostics: dict[str, Any]
    # absent from journals that are older than this field
    versions: dict[str, str] = Field(default_factory=dict)


class ProgressSaved(Event):
    """The state after a step inside a task is in the store. `seconds` is how long it was written, beside training."""

    name = "progress"
    task_id: int
    task: str
    step: int
    bytes: int
    seconds: float


class CheckpointCorrupt(Event):
    """A checkpoint's files were not what its manifest says; it was set aside and is made again."""

    name = "checkpoint_corrupt"
    key: str


class ScoreComputed(Event):
    """The score on one task of the state after `tasks_seen` tasks (0: the initial model), in the unit of the task's scorer."""

    name = "score"
    tasks_seen: int
    task_id: int
    task: str
    key: str
    score: float
    score_options: float | None
    correct: int
    n: int
    seconds: float
    # of the score over the examples; absent from scores that are older than this field
    interval: tuple[float, float] | None = None


class ProbeComputed(Event):
    """What the state after `tasks_seen` tasks got in a benchmark of base abilities, over `n` rows.

    `score` is the one of its `numbers` that `metric` names; shares are in %.
    """

    name = "probe"
    tasks_seen: int
    probe: str
    key: str
    metric: str
    score: float
    better: Literal["higher", "lower"]
    n: int
    numbers: dict[str, float]
    seconds: float


class ReferenceScored(Event):
    """The scores of the reference run that a sequence is read beside, by its method's name: one for each task."""

    name = "reference_scored"
    reference: str
    scores: list[float]


class Measured(Event):
    """Metrics that a report computes from more than one sequence's journal, by name; and the expert that they are beside."""

    name = "measured"
    expert: str | None
    values: dict[str, float]


class SequenceFinished(Event):
    """Every task was trained, and scored where the workers do that."""

    name = "sequence_finished"


class SequenceFailed(Event):
    """A sequence cannot go on: why, where it was, and where the whole traceback is.

    `transient`: another attempt may succeed. A journal of a sequence holds none of these, the notes of its workers do, which
    name their `attempt`.
    """

    name = "sequence_failed"
    reason: str
    traceback: str = ""
    method: str = ""
    task: str | None = None
    step: int | None = None
    worker: int | None = None
    log: str | None = None
    transient: bool = False
    attempt: str = ""


class ScoringFailed(Event):
    """The state after `tasks_seen` tasks could not be scored: why, and where the whole traceback is."""

    name = "scoring_failed"
    tasks_seen: int
    reason: str
    traceback: str = ""
    method: str = ""
    log: str | None = None


# Listed by hand: a base class such as TrialEvent is a kind of events, and none that is ever recorded
_OF_TRAINING = (TaskStarted, Step, PointScored, SystemSample, ProgressSaved, CheckpointSaved, CheckpointCorrupt)
_OF_SCORING = (ScoreComputed, ProbeComputed, ReferenceScored, Measured, ScoringFailed)
_OF_SEQUENCES = (SequenceStarted, *_OF_TRAINING, *_OF_SCORING, SequenceFinished, SequenceFailed)
_OF_TRIALS = (TrialSuggested, RungDecided, TrialReopened, TrialEnded, TrialProblem)
_OF_SEARCHES = (SearchStarted, SearchChosen, SearchFrozen, SearchFinished, *_OF_TRIALS)
EVENTS: dict[str, type[Event]] = {event.name: event for event in (*_OF_SEQUENCES, *_OF_SEARCHES)}


def parse_event(values: Mapping[str, Any]) -> Event:
    """The typed record of what `Event.to_json` gave. Raises ValueError for an unknown event or fields that are not its own."""
    name = values.get("event")
    if name not in EVENTS:
        raise ValueError(f"unknown event {name!r}")
    fields = {key: value for key, value in values.items() if key != "event"}
    try:
        return EVENTS[name].model_validate(fields)
    except ValidationError as error:
        # one line, since it is shown in one: pydantic's message has a paragraph for each field
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise ValueError(f"event {name!r}: {path}: {first['msg']}") from None
