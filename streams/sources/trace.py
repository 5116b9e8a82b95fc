"""The eight tasks of TRACE (arXiv 2310.06762) from a local folder in its own layout.

`<folder>/<task>/{train,test}.json`: a split is a JSON list of `{"prompt": str, "answer": str}`. An `eval.json` is not read:
a dev split is carved from train here, for all streams alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from streams.names import unknown_name
from streams.prompts import PLAIN
from streams.sources.folder import canonical, full_folder, needed_folder, read_json
from streams.sources.source import Source
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task

TRACE_VARIABLE = "TRACE_DIR"

# The published tasks, in the published order, and the scorer that is each one's metric in the paper. Its accuracy compares
# whole answers as they are written, which is `verbatim`; of ScienceQA, whose answers go on with reasons, the chosen option
# alone. Its similarity of Py150 is taken of code in which placeholders as `<NUM_LIT:2>` are replaced by what they stand for;
# `edit-similarity` compares the code as it is.
TRACE_SCORERS: dict[str, str] = {
    "C-STANCE": "verbatim",
    "FOMC": "verbatim",
    "MeetingBank": "rouge-l",
    "Py150": "edit-similarity",
    "ScienceQA": "choice",
    "NumGLUE-cm": "verbatim",
    "NumGLUE-ds": "verbatim",
    "20Minuten": "sari",
}


# rows of each task's train and test file, as the paper says
TRACE_ROWS = (5000, 2000)


class TraceSource(Source):
    """Tasks of TRACE, each asked by its own prompt as it stands, with open answers and its own metric."""

    folder: str | None = Field(None, description=f"where the tasks are; default: the variable {TRACE_VARIABLE}")
    tasks: tuple[str, ...] = Field(
        tuple(TRACE_SCORERS), min_length=1, description="the names of the tasks, in order; default: all eight"
    )

    def located(self) -> Self:
        return self.model_copy(update={"folder": full_folder(self.folder, TRACE_VARIABLE)})

    def stream(self, name: str, limits: Limits) -> Stream:
        folder = needed_folder(name, self.folder, TRACE_VARIABLE)
        if not Path(folder).is_dir():
            raise ValueError(f"folder {folder!r} does not exist")
        published = {canonical(task): task for task in TRACE_SCORERS}
        tasks = []
        for task in self.tasks:
            if canonical(task) not in published:
                raise ValueError(unknown_name("task", task, TRACE_SCORERS))
            tasks.append(_task(Path(folder), published[canonical(task)], limits))
        return Stream(name, tuple(tasks))


def _task(folder: Path, name: str, limits: Limits) -> Task:
    # as the folders are called on the disk, where `FOMC` may be `fomc`
    paths = {canonical(path.parent.name): path.parent for path in sorted(folder.glob("*/train.json"))}
    if canonical(name) not in paths:
        has = ", ".join(path.name for path in paths.values()) or "none"
        raise ValueError(f"folder {str(folder)!r} has no {name}/train.json (its tasks: {has})")
    return Task(
        name=name,
        category="",
        instruction="",
        labels=(),
        source=f"trace:{name}",
        load=partial(_load, paths[canonical(name)]),
        limits=limits,
        dataset=f"trace/{canonical(name)}",
        template=PLAIN,
        scorer=TRACE_SCORERS[name],
    )


def _load(path: Path, split: RawSplit) -> Sequence[Example]:
    file = path / f"{split}.json"
    rows = read_json(file)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{file}: expected a list of rows, at least one")
    examples = []
    for number, row in enumerate(rows, start=1):
        if not _is_row(row):
            raise ValueError(f'{file}: row {number} is not {{"prompt": text, "answer": text}}')
        examples.append(Example(row["prompt"], row["answer"]))
    return examples


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("prompt"), str) and isinstance(row.get("answer"), str)
