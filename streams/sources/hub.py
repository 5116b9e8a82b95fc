"""Tasks from the Hugging Face hub, or from a local folder that holds the same files, through `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from streams.sources.columns import ColumnTask
from streams.sources.folder import canonical
from streams.sources.source import Source
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task


class HubTask(ColumnTask):
    """Where a task lies on the hub and how its columns read.

    `revision` (a commit) is required for a hub id, so that the data cannot change under an experiment; a local folder
    is named by its content. `labels` gives the label texts: by class index where the label column holds integers,
    and by text where it holds strings; null takes the names that the data set declares, an empty list means that
    answers are open.
    """

    hub: str
    revision: str | None = None
    config: str | None = None
    train_split: str = "train"
    test_split: str = "test"

    @model_validator(mode="after")
    def _pinned(self) -> HubTask:
        # a branch moves: the same configuration would train on other data next month, under other keys
        if self.revision is None and not self.is_local:
            if self.hub.startswith((".", "/", "~")) or self.hub.count("/") > 1:
                raise ValueError(f"task {self.name!r}: folder {self.hub!r} does not exist")
            raise ValueError(f"task {self.name!r}: hub data {self.hub!r} needs a pinned `revision` (a commit hash)")
        # never read there: what lies in the folder may be of any revision
        if self.revision is not None and self.is_local:
            raise ValueError(f"task {self.name!r}: `revision` goes with data on the hub; {self.hub!r} is a folder")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the data lies in a folder of this machine."""
        try:
            return Path(self.hub).is_dir()
        # no folder has such a name
        except (OSError, ValueError):
            return False

    @property
    def identity(self) -> str:
        """The data set's id in lower case; a local folder's name without case and punctuation, as in `folder_task`."""
        name = self.hub.lower()
        if self.is_local:
            name = canonical(Path(self.hub).name)
        if self.config:
            name += f"/{self.config.lower()}"
        return name


class HubSource(Source):
    """Tasks of the hub, in the given order."""

    tasks: tuple[HubTask, ...] = Field(min_length=1, description="the tasks, in order")

    @model_validator(mode="before")
    @classmethod
    def _all_mappings(cls, values: Any) -> Any:
        tasks = None
        if isinstance(values, Mapping):
            tasks = values.get("tasks")
        if isinstance(tasks, list | tuple) and any(isinstance(task, str) for task in tasks):
            raise ValueError("`tasks` mixes folder tasks (names) and hub tasks (mappings)")
        return values

    @classmethod
    def recognises(cls, settings: Mapping[str, Any]) -> bool:
        tasks = settings.get("tasks")
        return isinstance(tasks, list | tuple) and any(isinstance(task, Mapping) for task in tasks)

    def stream(self, name: str, limits: Limits) -> Stream:
        tasks = []
        for task in self.tasks:
            tasks.append(hub_task(task, limits))
        return Stream(name, tuple(tasks))


def hub_task(spec: HubTask, limits: Limits = Limits()) -> Task:
    """The task that `spec` describes. Downloads what is not in the cache; reads the test split only when asked."""
    labels = spec.labels
    if labels is None:
        labels = _declared_labels(spec)
    source = f"hub-folder:{Path(spec.hub).name}"
    if spec.revision:
        source = f"hub:{spec.hub}@{spec.revision}"
    return spec.task(labels, source, partial(_load, spec, labels), limits, spec.identity)


def _dataset(spec: HubTask, split: str) -> Any:
    import datasets  # only this source needs it: a worker without the package still runs every other stream

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(spec.hub, spec.config, split=split, revision=spec.revision)
    except Exception as error:
        # `datasets` raises a dozen types for one cause each; the user needs the cause, not the type
        lines = str(error).strip().splitlines()
        cause = [*lines, type(error).__name__][0]
        raise ValueError(f"task {spec.name!r}: cannot read {spec.hub!r} split {split!r}: {cause}") from error


def _declared_labels(spec: HubTask) -> tuple[str, ...]:
    feature = _dataset(spec, spec.train_split).features.get(spec.label)
    names = getattr(feature, "names", None)
    if not names:
        raise ValueError(
            f"task {spec.name!r}: column {spec.label!r} of {spec.hub!r} declares no names; give `labels` "
            "([]: answers are open)"
        )
    return tuple(names)


def _load(spec: HubTask, labels: tuple[str, ...], split: RawSplit) -> Sequence[Example]:
    # data sets call their splits by names of their own (`validation` often is the public test split)
    name_on_hub = {"train": spec.train_split, "test": spec.test_split}[split]
    data = _dataset(spec, name_on_hub)
    spec.check_columns(data.column_names, repr(spec.hub))
    examples = []
    for row in data:
        examples.append(spec.example(row, labels))
    return spec.timed(examples, list(data), repr(spec.hub))
