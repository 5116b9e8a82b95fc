"""The MLflow runs of a search: one for the whole, with what was chosen and the pictures, and below it one a trial."""

from __future__ import annotations

from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from orchestrator.store.events import (
    Event,
    SearchFinished,
    SearchFrozen,
    SearchStarted,
    TrialEnded,
    TrialEvent,
    TrialSuggested,
)
from orchestrator.store.journal import Tail
from orchestrator.tracking.names import flatten, safe
from orchestrator.tracking.parent_runs import ParentRuns

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class SearchRuns:
    """Copies a search's journal; its sequences' are copied by themselves, below the runs made here."""

    def __init__(self, above: ParentRuns, folder: Path) -> None:
        self.above, self.client, self.folder = above, above.client, folder
        self.tail = Tail(folder)
        self.name = folder.parent.name
        self.key = f"search:{self.name}"

    def pull(self) -> None:
        """Copy what the journal has that is new."""
        for event in self.tail.new_events():
            self._take(event)

    @singledispatchmethod
    def _take(self, event: Event) -> None:
        """Copy one event; the others have no record in MLflow."""

    def _root(self, event: Event) -> str:
        run = self.above.run([(self.key, f"{self.name}: search")], event.time)
        assert run
        return run

    def _trial(self, event: TrialEvent) -> str:
        self._root(event)
        name = f"{self.name}-{event.method}-{event.number:03d}"
        key = f"{self.key}/{event.method}-{event.number:03d}-{event.definition[:8]}"
        run = self.above.run([(self.key, f"{self.name}: search"), (key, name)], event.time)
        assert run
        return run

    def _log(self, run: str, event: Event, values: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and v == v}
        self.client.log_batch(run, metrics=[Metric(safe(k), float(v), event.time, 0) for k, v in numbers.items()])

    def _params(self, run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(run).data.params  # MLflow lets no parameter change
        params = [Param(safe(k), str(v)[:500]) for k, v in values.items() if safe(k) not in known]
        for start in range(0, len(params), 100):
            self.client.log_batch(run, params=params[start : start + 100])

    @_take.register
    def _(self, event: SearchStarted) -> None:
        run = self._root(event)
        self.client.update_run(run, "RUNNING")
        for key in ("holdout", "searcher", "scheduler", "select"):  # as tags: a search may be defined anew
            self.client.set_tag(run, key, event.config["search"][key])
        self.client.log_dict(run, event.config, "config.yaml")

    @_take.register
    def _(self, event: TrialSuggested) -> None:
        run = self._trial(event)
        self._params(run, {"method": event.method, **event.values})
        self.client.set_tag(run, "orchestrator.method", event.method)

    @_take.register
    def _(self, event: TrialEnded) -> None:
        run, end = self._trial(event), event.result
        values = {"score": end["score"], "tasks": end["tasks"], **end["metrics"]}
        self._log(run, event, values | {f"cost/{k}": v for k, v in end["cost"].items()})
        self.client.set_tag(run, "orchestrator.status", end["status"])
        if end["reason"]:
            self.client.set_tag(run, "orchestrator.failure", end["reason"][:500])
        self.client.set_terminated(run, STATUS[end["status"]], event.time)

    @_take.register
    def _(self, event: SearchFrozen) -> None:
        run = self._root(event)
        self.client.set_tag(run, "orchestrator.chosen_sha256", event.sha256)
        for file in event.files:
            if Path(file).exists():
                self.client.log_artifact(run, file, "search")

    @_take.register
    def _(self, event: SearchFinished) -> None:
        run = self._root(event)
        self._log(run, event, flatten(event.summary))
        evaluation = self.client.search_runs(
            [self.above.experiment_id],
            f"tags.`mlflow.parentRunId` = '{run}' and attributes.run_name = 'evaluation'",
        )
        for below in evaluation:
            self.client.set_terminated(below.info.run_id, "FINISHED", event.time)
        self.client.set_terminated(run, "FINISHED", event.time)
