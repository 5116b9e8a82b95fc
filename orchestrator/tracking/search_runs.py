"""The MLflow runs of a search: one for the whole, with what was chosen and the plots, and below it one a trial."""

from __future__ import annotations

from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from orchestrator.storage.folders import on_disk
from orchestrator.store.journal import ResumableTail
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import (
    RungDecided,
    SearchChosen,
    SearchEvent,
    SearchFinished,
    SearchFrozen,
    SearchStarted,
    TrialEnded,
    TrialProblem,
    TrialReopened,
    TrialSuggested,
)
from orchestrator.tracking.names import flatten, safe_key
from orchestrator.tracking.notes import NoNotes, Note, Notes
from orchestrator.tracking.runs import PARAM_LENGTH, Runs

RUN_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

# As tags, not as parameters: a search may be defined anew, and MLflow lets no parameter change
SEARCH_TAGS = ("holdout", "searcher", "scheduler", "select")


class SearchRuns:
    """Copies a search's journal; its sequences' are copied by themselves, below the runs made here."""

    def __init__(self, runs: Runs, folder: Path, notes: Notes | NoNotes) -> None:
        self.runs = runs
        self.notes = notes
        self.folder = folder
        self.name = folder.parent.name
        self.tail = ResumableTail(folder)
        self._note_name = note_name(folder)
        self._run_ids = dict(notes.take_up(self._note_name, self.tail).runs)
        self._noted = dict(self.tail.offsets)
        self._finished: list[SearchFinished] = []

    def pull(self) -> bool:
        """Copy what the journal has that is new; how the search ended waits for `end`. Says whether there was anything."""
        if not self.tail.has_news():
            return False
        for event in self.tail.new_events():
            if isinstance(event, SearchFinished):
                self._finished.append(event)
                continue
            # a start takes back the end before it
            if isinstance(event, SearchStarted):
                self._copy_ends()
            self._copy(event)
        return True

    def end(self) -> None:
        """Copy how the search ended. Call it when its sequences are copied, whose runs it ends too."""
        self._copy_ends()
        if self.tail.offsets != self._noted:
            self.notes.keep(self._note_name, Note(self.tail.digests(), self._run_ids))
            self._noted = dict(self.tail.offsets)

    def _copy_ends(self) -> None:
        for event in self._finished:
            self._copy(event)
        self._finished.clear()

    def _run(self, event: SearchEvent) -> str:
        """The run that an event belongs to: found by its key, or else created."""
        chain = event.parent_runs(self.name)
        run_id = self.runs.last_of(chain, event.time)
        assert run_id is not None
        self._run_ids[chain[-1].key] = run_id
        return run_id

    @singledispatchmethod
    def _copy(self, event: Event) -> None:
        raise TypeError(f"event {event.name!r} is none of a search")

    @_copy.register(RungDecided)
    @_copy.register(SearchChosen)
    @_copy.register(TrialProblem)
    @_copy.register(TrialReopened)
    def _(self, event: Event) -> None:
        """What MLflow is not told: it shows the frozen choice and how each trial ended."""

    @_copy.register
    def _(self, event: SearchStarted) -> None:
        run_id = self._run(event)
        self.runs.begin(run_id)
        for key in SEARCH_TAGS:
            self.runs.set_tag(run_id, key, event.config["search"][key])
        self.runs.log_dict(run_id, event.config, "config.yaml")

    @_copy.register
    def _(self, event: TrialSuggested) -> None:
        run_id = self._run(event)
        self.runs.log_params(run_id, {"method": event.method, **event.values})
        self.runs.set_tag(run_id, "orchestrator.method", event.method)

    @_copy.register
    def _(self, event: TrialEnded) -> None:
        run_id = self._run(event)
        result = event.result
        numbers = {"score": result["score"], "tasks": result["tasks"], **result["metrics"]}
        for unit, amount in result["cost"].items():
            numbers[f"cost/{unit}"] = amount
        self._log_numbers(run_id, event, numbers)
        self.runs.set_tag(run_id, "orchestrator.status", result["status"])
        if result["reason"]:
            self.runs.set_tag(run_id, "orchestrator.failure", result["reason"][:PARAM_LENGTH])
        self.runs.end(run_id, RUN_STATUS[result["status"]], event.time)

    @_copy.register
    def _(self, event: SearchFrozen) -> None:
        run_id = self._run(event)
        self.runs.set_tag(run_id, "orchestrator.chosen_sha256", event.sha256)
        for path in event.files:
            # the folder may have been moved since
            file = self.folder / Path(path).name
            # a file may have been deleted since: a journal that is copied anew is read from its start
            if file.exists():
                with on_disk(file) as copy:
                    self.runs.log_artifact(run_id, copy, "search")

    @_copy.register
    def _(self, event: SearchFinished) -> None:
        run_id = self._run(event)
        self._log_numbers(run_id, event, flatten(event.summary))
        status = "FINISHED" if event.is_complete else "FAILED"
        self.runs.end_below(run_id, "evaluation", status, event.time)
        self.runs.end(run_id, status, event.time)

    def _log_numbers(self, run_id: str, event: Event, values: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        metrics: list[Any] = []
        for key, value in values.items():
            # NaN, which is not itself, says that a metric does not apply
            if isinstance(value, int | float) and value == value:
                metrics.append(Metric(safe_key(key), float(value), event.time, 0))
        self.runs.log_metrics(run_id, metrics)


def note_name(folder: Path) -> str:
    """Under which name is noted how far a search's journal was copied."""
    return f"search {folder.parent.name}"
