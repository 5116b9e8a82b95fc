"""TODO orchestrator.config.stream"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

import streams as streams_package
from methods import unknown
from orchestrator.config.section import Section
from streams import HubTask, Limits, Stream, half_of_labels


class StreamConfig(Section):
    """A stream: a name of the catalogue, or tasks of a folder, or tasks of the hub; and how much of each."""

    name: str
    folder: str | None = Field(None, description="where the tasks are; default: the variable CL_BENCHMARK_DIR")
    tasks: tuple[str | HubTask, ...] | None = Field(None, description="own tasks, in order")
    max_train: int | None = Field(None, ge=1)
    max_dev: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    first: int | None = Field(None, ge=1, description="only the first tasks")
    only: str | None = Field(None, description="this task alone")
    dev_fraction: float = Field(0.1, ge=0, lt=1, description="share of train that is held out as the dev split")
    seed: int = Field(0, ge=0, description="chooses the rows (not the training order)")
    row_half: Literal[0, 1] | None = Field(None, description="only this half of the rows, by their text")
    label_half: Literal[0, 1] | None = Field(None, description="only this half of each task's labels")

    @model_validator(mode="after")
    def _known(self) -> StreamConfig:
        if self.tasks is None and self.name not in streams_package.DESCRIPTIONS:
            hint = unknown("stream", self.name, streams_package.DESCRIPTIONS)
            raise ValueError(f"{hint}; a stream of your own needs `tasks`")
        if self.tasks is not None and len({isinstance(t, str) for t in self.tasks}) > 1:
            raise ValueError("`tasks` mixes folder tasks (names) and hub tasks (mappings)")
        return self

    def located(self) -> StreamConfig:
        """The same with the folder's full path, so that a worker on another machine needs no variable."""
        folder = self.folder or os.environ.get("CL_BENCHMARK_DIR")
        needs_it = self.name in streams_package.FOLDER_STREAMS or self.tasks is not None
        if not needs_it or not folder:
            return self
        return self.model_copy(update={"folder": str(Path(folder).expanduser().resolve())})

    def build(self) -> Stream:
        """The stream itself. Raises ValueError where its data is missing or wrong."""
        stream = self._whole()
        if self.label_half is not None:
            stream = Stream(stream.name, tuple(half_of_labels(t, self.label_half, self.seed) for t in stream.tasks))
        if self.first is not None and self.first > len(stream.tasks):
            raise ValueError(f"stream {self.name!r}: first = {self.first}, but it has {len(stream.tasks)} tasks")
        stream = stream.first(self.first) if self.first is not None else stream
        if self.only is None:
            return stream
        found = tuple(task for task in stream.tasks if task.name == self.only)
        if not found:
            raise ValueError(f"stream {self.name!r}: " + unknown("task", self.only, [t.name for t in stream.tasks]))
        return Stream(stream.name, found)

    def _whole(self) -> Stream:
        limits = Limits(self.max_train, self.max_dev, self.max_test, self.dev_fraction, self.seed, self.row_half)
        folder = self.located().folder
        path = Path(folder) if folder else None
        if self.tasks is None:
            return streams_package.named_stream(self.name, limits, path)
        hub = [task for task in self.tasks if isinstance(task, HubTask)]
        if hub:
            return streams_package.hub_stream(self.name, hub, limits)
        if path is None:
            raise ValueError(f"stream {self.name!r}: its tasks are names, so set `folder`, or CL_BENCHMARK_DIR")
        return streams_package.folder_stream(self.name, path, [str(t) for t in self.tasks], limits)


def _stream_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Streams = Annotated[tuple[Annotated[StreamConfig, BeforeValidator(_stream_entry)], ...], Field(min_length=1)]
