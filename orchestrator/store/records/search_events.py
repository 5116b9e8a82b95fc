"""The facts about a search and its trials, as typed records (see `orchestrator.store.events`)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from orchestrator.store.identities import ParentRun, search_run, trial_name, trial_run
from orchestrator.store.records.event import Event


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
    """A trial reached the rung at so many finished tasks with a score, and goes on or is to stop."""

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
