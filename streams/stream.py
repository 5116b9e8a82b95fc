"""Stream: an ordered list of tasks, and the manifest that says what its data is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from streams.manifest import verdict_of
from streams.names import check_name
from streams.splits import RawSplit
from streams.task import Task


@dataclass(frozen=True, eq=False)
class Stream:
    """An ordered list of tasks."""

    name: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"stream {self.name!r} has no tasks")
        check_name("stream", self.name)
        names = self.task_names
        for name in names:
            check_name("task", name)
        if len(set(names)) != len(names):
            raise ValueError(f"stream {self.name!r} names a task twice: {', '.join(names)}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks, in order."""
        return tuple(task.name for task in self.tasks)

    def labels_until(self, count: int) -> tuple[str, ...]:
        """The union of the label texts of the first `count` tasks, in order of first appearance."""
        labels: dict[str, None] = {}
        for task in self.tasks[:count]:
            labels.update(dict.fromkeys(task.labels))
        return tuple(labels)

    def first(self, count: int) -> Stream:
        """The stream of the first `count` tasks."""
        if not 1 <= count <= len(self.tasks):
            raise ValueError(f"stream {self.name!r}: the first {count} tasks of {len(self.tasks)} are asked for")
        return replace(self, tasks=self.tasks[:count])

    def changed(self, change: Callable[[Task], Task]) -> Stream:
        """The stream of the same name with every task changed by a function."""
        return replace(self, tasks=tuple(map(change, self.tasks)))

    def sealed(self) -> Stream:
        """The same stream for tuning: every task refuses its test split."""
        return self.changed(lambda task: task.sharing(sealed=True))

    def watched(self, on_test_read: Callable[[Task], None]) -> Stream:
        """The same stream; each task calls `on_test_read` before it first gives of its test split."""
        return self.changed(lambda task: task.sharing(on_test_read=on_test_read))

    def manifest(self) -> list[dict[str, object]]:
        """What the data is: for each task sizes, hashes, dropped rows, prompt, scorer and where it came from.

        Of a task of the public benchmark also whether its files are the published ones (see `streams.manifest`).

        Reads all splits; of a sealed task all but test, of which its entry then says nothing.
        """
        return list(map(_describe, self.tasks))


def _describe(task: Task) -> dict[str, object]:
    sizes = {"train": task.size("train"), "dev": 0}
    dev_sha256 = None
    if task.has_dev:
        sizes["dev"] = task.size("dev")
        dev_sha256 = task.split_hash("dev")
    raw_splits: list[RawSplit] = ["train"]
    # merely asking a sealed task for the size of its test split would read it, and raise
    if not task.sealed:
        sizes["test"] = task.size("test")
        raw_splits.append("test")
    described: dict[str, object] = {
        "task": task.name,
        "dataset": task.dataset,
        "source": task.source,
        "labels": list(task.labels),
        "prompt": task.template.name,
        "scorer": task.scorer,
        "sizes": sizes,
        "dropped_rows": {split: task.dropped_rows(split) for split in raw_splits},
        "train_sha256": task.train_hash,
        "dev_sha256": dev_sha256,
    }
    if not task.sealed:
        described["test_sha256"] = task.test_hash
    if task.check_files is not None:
        described["published"] = verdict_of(task.check_files(raw_splits))
    return described
