"""What MLflow should have of some journals: their copy, made in memory by the same code that makes the real one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.store.events import CheckpointSaved, SequenceStarted
from orchestrator.store.identities import PARENT_TAG, SEQUENCE_TAG, TASK_TAG, RunIdentity
from orchestrator.tracking.notes import NoNotes
from orchestrator.tracking.runs import Runs, as_params, settings_of
from orchestrator.tracking.search_runs import SearchRuns
from orchestrator.tracking.sequence_runs import SequenceRuns

# The values of the tags by which a run is found: of a sequence's runs the first two, of a search's the third
Identity = tuple[str, str, str]

# A point of a metric: step, time, value
Point = tuple[int, int, float]


def identity_of(tags: Mapping[str, str]) -> Identity:
    """What a run is found by."""
    return tags.get(SEQUENCE_TAG, ""), tags.get(TASK_TAG, ""), tags.get(PARENT_TAG, "")


@dataclass
class ExpectedRun:
    """A run as it should be in the store."""

    name: str
    tags: dict[str, str]
    parent: Identity | None
    status: str = "RUNNING"
    ended: int = 0
    params: dict[str, str] = field(default_factory=dict)
    points: dict[str, set[Point]] = field(default_factory=lambda: defaultdict(set))
    model: RunIdentity | None = None

    def num_points(self) -> int:
        """How many points all of its metrics have."""
        return sum(len(of_key) for of_key in self.points.values())


class ExpectedRuns(Runs):
    """Keeps what it is told to write."""

    takes_files = False

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self.by_id: dict[str, ExpectedRun] = {}

    def by_identity(self) -> dict[Identity, ExpectedRun]:
        """The runs, each by what it is found by."""
        return {identity_of(run.tags): run for run in self.by_id.values()}

    def find(self, tags: Mapping[str, str]) -> str | None:
        """No run is there before it is made."""
        return None

    def create(self, tags: Mapping[str, str], name: str, parent: str | None, started: int) -> str:
        """A new run."""
        run_id = str(len(self.by_id))
        above = None
        if parent is not None:
            above = identity_of(self.by_id[parent].tags)
        self.by_id[run_id] = ExpectedRun(name, dict(tags), above)
        return run_id

    def begin(self, run_id: str) -> None:
        """The run goes on."""
        self.by_id[run_id].status = "RUNNING"

    def end(self, run_id: str, status: str, time: int) -> None:
        """The run has ended."""
        self.by_id[run_id].status = status
        self.by_id[run_id].ended = time

    def end_below(self, run_id: str, name: str, status: str, time: int) -> None:
        """The runs of a name below another have ended."""
        above = identity_of(self.by_id[run_id].tags)
        for below_id, run in self.by_id.items():
            if run.parent == above and run.name == name:
                self.end(below_id, status, time)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """A tag of the run."""
        self.by_id[run_id].tags[key] = value

    def log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Parameters, of which none changes."""
        self.by_id[run_id].params = as_params(values) | self.by_id[run_id].params

    def log_metrics(self, run_id: str, metrics: Sequence[Any]) -> None:
        """Points of the run."""
        points = self.by_id[run_id].points
        for metric in metrics:
            points[metric.key].add((metric.step, metric.timestamp, metric.value))

    def log_dict(self, run_id: str, content: Any, file: str) -> None:
        """Files are not compared."""

    def log_artifact(self, run_id: str, file: Path, folder: str) -> None:
        """Files are not compared."""

    def describe(self, run_id: str, event: SequenceStarted) -> None:
        """The parameters of a sequence."""
        self.log_params(run_id, settings_of(event))

    def add_model(
        self, run_id: str, sequence_id: str, sequence: dict[str, Any], event: CheckpointSaved, is_new: bool
    ) -> str:
        """The model of the run."""
        self.by_id[run_id].model = RunIdentity(sequence_id, event.task_id)
        return run_id


def expected_runs(out: str, sequence_ids: Iterable[str], search: Path | None) -> dict[Identity, ExpectedRun]:
    """What the journals of these sequences say, and that of the search whose folder is given."""
    runs = ExpectedRuns()
    search_runs = None
    if search is not None:
        search_runs = SearchRuns(runs, search, NoNotes())
        search_runs.pull()
    for sequence_id in sequence_ids:
        SequenceRuns(runs, out, sequence_id, NoNotes()).pull()
    if search_runs is not None:
        search_runs.end()
    return runs.by_identity()
