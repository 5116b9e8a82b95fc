"""Tasks from the Hugging Face hub, or from a local folder that holds the same files, through `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from streams.base import Example, Limits, Task
from streams.sources.folder import canonical


@dataclass(frozen=True)
class HubTask:
    """Where a task lies on the hub and how its columns read.

    `revision` (a commit) is required for a hub id, so that the data cannot change under an experiment; a local folder
    is named by its content. `labels` gives the label texts: by class index where the label column holds integers,
    and by text where it holds strings; None takes the names that the data set declares.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # it is read from YAML as it is

    name: str
    hub: str
    revision: str | None = None
    config: str | None = None
    text: str | tuple[str, ...] = "text"
    label: str = "label"
    labels: tuple[str, ...] | None = None
    instruction: str = ""
    category: str = ""
    train_split: str = "train"
    test_split: str = "test"

    def __post_init__(self) -> None:
        if self.revision is None and not Path(self.hub).is_dir():
            raise ValueError(f"task {self.name!r}: hub data {self.hub!r} needs a pinned `revision` (a commit hash)")


def hub_task(spec: HubTask, limits: Limits = Limits()) -> Task:
    """The task that `spec` describes. Downloads what is not in the cache; reads the test split only when asked."""
    labels = spec.labels or _declared_labels(spec)
    return Task(
        name=spec.name,
        category=spec.category,
        instruction=spec.instruction,
        labels=tuple(labels),
        source=f"hub:{spec.hub}@{spec.revision}" if spec.revision else f"hub-folder:{Path(spec.hub).name}",
        load=partial(_load, spec, tuple(labels)),
        limits=limits,
        dataset=_identity(spec),
    )


def _identity(spec: HubTask) -> str:
    """The data set's id in lower case; a local folder's name without case and punctuation, as in `folder_task`."""
    name = canonical(Path(spec.hub).name) if Path(spec.hub).is_dir() else spec.hub.lower()
    return f"{name}/{spec.config.lower()}" if spec.config else name


def _dataset(spec: HubTask, split: str) -> Any:
    import datasets  # only this source needs it: a worker without the package still runs every other stream

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(spec.hub, spec.config, split=split, revision=spec.revision)
    except Exception as error:
        # `datasets` raises a dozen types for one cause each; the user needs the cause, not the type
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"task {spec.name!r}: cannot read {spec.hub!r} split {split!r}: {first}") from error


def _declared_labels(spec: HubTask) -> tuple[str, ...]:
    feature = _dataset(spec, spec.train_split).features.get(spec.label)
    names = getattr(feature, "names", None)
    if not names:
        raise ValueError(f"task {spec.name!r}: column {spec.label!r} of {spec.hub!r} declares no names; give `labels`")
    return tuple(names)


def _load(spec: HubTask, labels: tuple[str, ...], split: Literal["train", "test"]) -> Sequence[Example]:
    data = _dataset(spec, spec.train_split if split == "train" else spec.test_split)
    columns = (spec.text,) if isinstance(spec.text, str) else spec.text
    missing = [column for column in (*columns, spec.label) if column not in data.column_names]
    if missing:
        has = ", ".join(data.column_names)
        raise ValueError(f"task {spec.name!r}: {spec.hub!r} has no column {missing[0]!r} (it has {has})")
    return [Example("\n".join(str(row[c]) for c in columns), _label_text(row[spec.label], labels)) for row in data]


def _label_text(value: object, labels: tuple[str, ...]) -> str:
    if isinstance(value, int):
        return labels[value] if 0 <= value < len(labels) else str(value)
    return str(value)
