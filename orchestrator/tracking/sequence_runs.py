"""The MLflow runs of a sequence: a parent, a child for each task, a logged model for each checkpoint."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from methods import run_kind
from orchestrator.evaluation import metrics
from orchestrator.report.plots import heat_map
from orchestrator.store.events import (
    CheckpointSaved,
    Event,
    ScoreComputed,
    SequenceFailed,
    SequenceFinished,
    SequenceStarted,
    Step,
    SystemSample,
    TaskStarted,
)
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import View
from orchestrator.tracking.names import flatten, plain_name, safe
from orchestrator.tracking.parent_runs import ParentRuns

STEP_METRICS = ("loss", "lr", "grad_norm", "tokens_per_s")


BATCH = 900  # MLflow takes at most 1000 metrics a call


SEQUENCE_TAG, TASK_TAG = "orchestrator.sequence", "orchestrator.task_id"


PARENT = -1


class SequenceRuns:
    """The MLflow runs of one sequence: a parent, and a child for each task."""

    def __init__(self, above: ParentRuns, out: str, sequence_id: str) -> None:
        self.above, self.client, self.experiment_id = above, above.client, above.experiment_id
        self.view = View(sequence_id)
        self.tail = Tail(journal_folder(out, sequence_id))
        self.run_ids: dict[int, str] = {}
        self.model_ids: dict[int, str] = {}
        self.pending: dict[str, list[Any]] = defaultdict(list)
        self.samples = 0

    def pull(self) -> None:
        """Copy what the journal has that is new."""
        for event in self.tail.new_events():
            if self.view.add(event):
                self._take(event)
        self._flush()

    @singledispatchmethod
    def _take(self, event: Event) -> None:
        """Copy one event; the others have no record in MLflow."""

    def _flush(self) -> None:
        for run_id, waiting in self.pending.items():
            for start in range(0, len(waiting), BATCH):
                self.client.log_batch(run_id, metrics=waiting[start : start + BATCH])
        self.pending.clear()

    def _log(
        self, run: int, values: Mapping[str, float | None], event: Event, step: int, model: int | None = None
    ) -> None:
        from mlflow.entities import Metric

        for key, value in values.items():
            if value is not None and value == value:
                model_id = self.model_ids.get(model) if model is not None else None
                self.pending[self._run(run)].append(Metric(safe(key), value, event.time, step, model_id=model_id))

    def _run(self, task_id: int) -> str:
        """The run of a task, or the parent run: found by its tags, or else created."""
        if task_id not in self.run_ids:
            query = f"tags.`{SEQUENCE_TAG}` = '{self.view.id}' and tags.`{TASK_TAG}` = '{task_id}'"
            found = self.client.search_runs([self.experiment_id], query, max_results=1)
            self.run_ids[task_id] = found[0].info.run_id if found else self._create_run(task_id)
        return self.run_ids[task_id]

    def _create_run(self, task_id: int) -> str:
        assert self.view.start is not None
        sequence = self.view.start.sequence
        tags = {
            SEQUENCE_TAG: self.view.id,
            TASK_TAG: str(task_id),
            "orchestrator.method": _method_name(sequence),
            "orchestrator.stream": sequence["stream"]["name"],
            "mlflow.source.name": "orchestrator",
        }
        if self.view.start.git_commit:
            tags["mlflow.source.git.commit"] = self.view.start.git_commit
        place = [sequence["stream"]["name"], *filter(None, [sequence["stream"].get("only")])]
        name = " · ".join([_method_name(sequence), *place, f"seed {sequence['seed']}"])
        ancestor = self.above.run(sequence.get("parents", ()), self.view.start.time)
        if task_id == PARENT and ancestor:
            tags["mlflow.parentRunId"] = ancestor
        if task_id != PARENT:
            tags["mlflow.parentRunId"] = self._run(PARENT)
            name = f"{task_id + 1} {self.view.tasks[task_id]}"
        task = self.view.by_task.get(task_id)
        started = (task.started if task else None) or self.view.start.time
        run = self.client.create_run(self.experiment_id, start_time=started, tags=tags, run_name=name)
        run_id: str = run.info.run_id
        return run_id

    @_take.register
    def _(self, event: SequenceStarted) -> None:
        run_id = self._run(PARENT)
        self.client.update_run(run_id, "RUNNING")
        if "orchestrator.described" not in self.client.get_run(run_id).data.tags:
            self._describe(run_id, event)
            self.client.set_tag(run_id, "orchestrator.described", "yes")

    def _describe(self, run_id: str, event: SequenceStarted) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        facts = {k: getattr(event, k) for k in ("versions", "git_commit", "machine", "workers", "device")}
        flat = flatten({**event.sequence, **facts})
        params = [Param(safe(k), str(v)[:500]) for k, v in flat.items() if k != "keys"]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])
        self.client.log_dict(run_id, event.sequence, "config.yaml")
        self.client.log_dict(run_id, {"data": event.data}, "data.json")
        self.client.log_dict(run_id, facts, "environment.json")
        inputs = []
        for task in event.data:
            profile = json.dumps({"sizes": task["sizes"], "dropped_rows": task["dropped_rows"]})
            data = Dataset(
                task["task"], task["train_sha256"][:36], "local", json.dumps(task["source"]), profile=profile
            )
            inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", "train")]))
        self.client.log_inputs(run_id, inputs)

    def _offset(self, task_id: int) -> int:
        """Steps of the tasks before, so that the parent's curves run on."""
        return sum(task.total_steps for i, task in self.view.by_task.items() if i < task_id)

    @_take.register
    def _(self, event: TaskStarted) -> None:
        self.client.set_tag(self._run(event.task_id), "orchestrator.reused", str(event.reused).lower())

    @_take.register
    def _(self, event: Step) -> None:
        values = {key: getattr(event, key) for key in STEP_METRICS}
        self._log(event.task_id, values, event, event.step)
        self._log(PARENT, values, event, self._offset(event.task_id) + event.step)

    @_take.register
    def _(self, event: SystemSample) -> None:
        values = {f"system/{k}": v for k, v in event.values.items()}
        self._log(PARENT, values, event, self.samples)
        self.samples += 1

    @_take.register
    def _(self, event: CheckpointSaved) -> None:
        """A logged model that points to the checkpoint; no bytes are copied."""
        from mlflow.entities import LoggedModelOutput

        task_id, run_id = event.task_id, self._run(event.task_id)
        query = f"tags.orchestrator_run = '{run_id}'"
        found = self.client.search_logged_models([self.experiment_id], query, max_results=1)
        if found:
            self.model_ids[task_id] = found[0].model_id
        else:
            self.model_ids[task_id] = self._create_model(event, run_id)
        outputs = self.client.get_run(run_id).outputs
        if not (outputs and outputs.model_outputs):
            self.client.log_outputs(run_id, [LoggedModelOutput(self.model_ids[task_id], 0)])
        cost = {"seconds": event.seconds, **event.usage}
        self._log(PARENT, {f"train_{unit}": value for unit, value in cost.items()}, event, task_id + 1)
        for name, value in event.diagnostics.items():
            self._take_diagnostic(event, name, value)
        self.client.set_terminated(run_id, "FINISHED", event.time)

    def _take_diagnostic(self, event: CheckpointSaved, name: str, value: Any) -> None:
        """A number: a metric of the task. A list: over its layers, with the mean in the parent. A matrix: a picture too."""
        task_id = event.task_id
        if not isinstance(value, list):
            self._log(task_id, {name: value}, event, task_id + 1)
            self._log(PARENT, {name: value}, event, task_id + 1)
        elif value and not isinstance(value[0], list):
            for layer, number in enumerate(value):
                self._log(task_id, {name: number}, event, layer)
            self._log(PARENT, {name: sum(value) / len(value)}, event, task_id + 1)
        elif value:
            run, file = self._run(PARENT), f"diagnostics/{name.replace('/', '-')}-after-{task_id + 1}"
            self.client.log_dict(run, {"tasks": list(self.view.tasks[: len(value)]), name: value}, f"{file}.json")
            figure = heat_map(value, self.view.tasks[: len(value)], name)
            self.client.log_figure(run, figure, f"{file}.png")

    def _create_model(self, event: CheckpointSaved, run_id: str) -> str:
        import mlflow

        place = Path(event.path)
        tags = {
            "orchestrator_run": run_id,
            "checkpoint_uri": place.as_uri(),
            "key": event.key,
            "bytes": str(event.bytes),
            "reused": str(event.reused).lower(),
        }
        params = {"task": event.task, "task_id": str(event.task_id), "key": event.key}
        sequence = self.view.start.sequence if self.view.start else {}
        name = f"{event.task_id + 1}-{event.task} · {_method_name(sequence)} · seed {sequence['seed']}"
        model = mlflow.create_external_model(
            name=plain_name(name), source_run_id=run_id, tags=tags, params=params, model_type="checkpoint",
            experiment_id=self.experiment_id,
        )  # fmt: skip
        model_id: str = model.model_id
        return model_id

    @_take.register
    def _(self, event: ScoreComputed) -> None:
        row, task = event.tasks_seen, self.view.tasks[event.task_id]
        values = {f"acc/{task}": event.score, f"acc_options/{task}": event.score_options}
        self._log(PARENT, values, event, row)
        if row > 0:
            self._log(row - 1, values, event, row, model=row - 1)
        if self.view.has_all_scores(row) and all(self.view.has_all_scores(r) for r in range(row)):
            upto = row
            while upto < len(self.view.tasks) and self.view.has_all_scores(upto + 1):
                upto += 1  # a row that came late completes those after it too
            for r in range(max(row, 1), upto + 1):
                self._log_summary(r, event)

    def _log_summary(self, row: int, event: Event) -> None:
        assert self.view.start is not None
        kind = run_kind(self.view.start.sequence["method"].get("reference"))
        options_matrix = self.view.matrix("score_options")
        values = metrics.summary(self.view.matrix(), self.view.test_sizes(), options_matrix, row, kind)
        self._log(PARENT, dict(values), event, row)
        self._log(row - 1, {"aa": values["aa"]}, event, row, model=row - 1)

    @_take.register
    def _(self, event: SequenceFinished) -> None:
        self._flush()
        self.client.set_terminated(self._run(PARENT), "FINISHED", event.time)

    @_take.register
    def _(self, event: SequenceFailed) -> None:
        self._flush()
        self.client.set_tag(self._run(PARENT), "orchestrator.failure", event.reason)
        ended = {task_id for task_id, task in self.view.by_task.items() if task.checkpoint}
        for task_id in (PARENT, *(t for t in self.run_ids if t not in (PARENT, *ended))):
            self.client.set_terminated(self._run(task_id), "FAILED", event.time)


def _method_name(sequence: dict[str, Any]) -> str:
    method = sequence["method"]
    parts = "+".join([method["tuning"]["name"], *(p["name"] for p in method["plugins"])])
    return method["name"] or parts + (f" ({method['reference']})" if method.get("reference") else "")
