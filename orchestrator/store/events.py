"""The facts that a journal holds, as typed records: one class for each kind, found by the name in its `event` field.

An event that is read back is checked against its class: an unknown name, a missing field or a value of another type raises
ValueError. Times are in milliseconds since 1970. `identities.py` says which record of MLflow an event belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.store.identities import ParentRun, search_run, trial_name, trial_run


def now_ms() -> int:
    """The present time in milliseconds since 1970."""
    return int(time.time() * 1000)


class Event(BaseModel):
    """A fact and when it was recorded."""

    # a diagnostic may be NaN, which must come back as it was written
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    name: ClassVar[str] = ""

    time: int = Field(default_factory=now_ms)

    def to_json(self) -> dict[str, Any]:
        """The event as plain values, with its name under `event`."""
        return {"event": self.name, **self.model_dump(mode="json")}

    def says_the_same_as(self, other: Event) -> bool:
        """Whether both record one fact, whenever each was recorded."""
        return self.model_copy(update={"time": other.time}) == other


Report = Callable[[Event], None]


class SequenceStarted(Event):
    """A group of workers took up a sequence: the whole configuration, the data and the software."""

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


class ReferenceScored(Event):
    """The scores of the reference run that a sequence is read beside, by its method's name: one for each task."""

    name = "reference_scored"
    reference: str
    scores: list[float]


class SequenceFinished(Event):
    """Every task was trained, and scored where the workers do that."""

    name = "sequence_finished"


class SequenceFailed(Event):
    """A sequence cannot go on: why, where it was, and where the whole traceback is.

    `transient`: another attempt may succeed. A journal of a sequence holds none of these, the notes of its workers do.
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


class ScoringFailed(Event):
    """The state after `tasks_seen` tasks could not be scored: why, and where the whole traceback is."""

    name = "scoring_failed"
    tasks_seen: int
    reason: str
    traceback: str = ""
    method: str = ""
    log: str | None = None


class SearchEvent(Event):
    """A fact about a search."""

    def parent_runs(self, search: str) -> tuple[ParentRun, ...]:
        """The run in MLflow that it belongs to, below those above it, the topmost first."""
        return (search_run(search),)


class SearchStarted(SearchEvent):
    """A search was defined and checked."""

    name = "search_started"
    config: dict[str, Any]


class SearchChosen(SearchEvent):
    """Values were chosen, and named by the hash of the file that holds them."""

    name = "search_chosen"
    sha256: str


class SearchFrozen(SearchEvent):
    """The tuning phase is over; `files` are its artifacts."""

    name = "search_frozen"
    sha256: str
    files: list[str]


class SearchFinished(SearchEvent):
    """Both phases are over; not `is_complete` where a run of the evaluation failed, which the same command tries anew."""

    name = "search_finished"
    summary: dict[str, Any]
    is_complete: bool = True


class TrialEvent(SearchEvent):
    """A fact about the trial of that number of a method; `definition` tells a search that was defined anew from the old."""

    definition: str
    method: str
    number: int

    @property
    def trial(self) -> str:
        """The trial's name within its search, such as `ft+migu-007`."""
        return trial_name(self.method, self.number)

    def parent_runs(self, search: str) -> tuple[ParentRun, ...]:
        """The trial's run in MLflow, below the search's."""
        return (search_run(search), trial_run(search, self.trial, self.definition))


class TrialSuggested(TrialEvent):
    """A trial's values were drawn. `notes` are what the sampler wants to remember of how it came to them.

    `history`: the scores that the sampler learnt from, of the rounds before, by number; None where a trial did not finish.
    """

    name = "trial_suggested"
    values: dict[str, Any]
    notes: dict[str, Any]
    history: list[float | None] = Field(default_factory=list)


class RungDecided(TrialEvent):
    """A trial reached the rung at so many finished tasks with a score in %, and goes on or is to stop."""

    name = "rung_decided"
    tasks: int
    score: float
    goes_on: bool


class TrialReopened(TrialEvent):
    """A trial that failed is to run again."""

    name = "trial_reopened"


class TrialEnded(TrialEvent):
    """How a trial ended (see `orchestrator.search.trials.TrialResult`)."""

    name = "trial_ended"
    result: dict[str, Any]


class TrialProblem(Event):
    """What went wrong with the machinery around a trial."""

    name = "trial_problem"
    trial: str
    reason: str


# Listed by hand: a base class such as TrialEvent is a kind of events, and none that is ever recorded
EVENTS: dict[str, type[Event]] = {
    event.name: event
    for event in (
        SequenceStarted,
        TaskStarted,
        Step,
        SystemSample,
        CheckpointSaved,
        CheckpointCorrupt,
        ScoreComputed,
        ReferenceScored,
        SequenceFinished,
        SequenceFailed,
        ScoringFailed,
        SearchStarted,
        SearchChosen,
        SearchFrozen,
        SearchFinished,
        TrialSuggested,
        RungDecided,
        TrialReopened,
        TrialEnded,
        TrialProblem,
    )
}


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
