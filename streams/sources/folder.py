"""Tasks from a local folder in the layout of the public 15-task benchmark.

`<folder>/<category>/<task>/{train.json, test.json, labels.json}`: a split is a JSON list of
`{"label": str, "sentence": str}`, `labels.json` the list of options, which is empty where answers are open. A
`dev.json` is ignored: in the public files it is the test split, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from streams.manifest import file_checker
from streams.sources.reading import full_path
from streams.sources.source import Source, times_of
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task
from streams.text import bare_text

FOLDER_VARIABLE = "CL_BENCHMARK_DIR"

# The instructions published with the benchmark (O-LoRA, arXiv 2310.14152)
INSTRUCTIONS = {
    "NLI": 'What is the logical relationship between the "sentence 1" and the "sentence 2"? ',
    "QQP": 'Whether the "first sentence" and the "second sentence" have the same meaning? ',
    "SC": "What is the sentiment of the following paragraph? ",
    "TC": "What is the topic of the following paragraph? ",
    "BoolQA": "According to the following passage, is the question true or false? ",
    "MultiRC": "According to the following passage and question, is the candidate answer true or false? ",
    "WiC": "Given a word and two sentences, whether the word is used with the same sense in both sentence? ",
}
CHOOSE = "Choose one from the option.\n"
# Each row of COPA asks its own question and lists its own options, so the published prompt adds neither
ASKED_IN_TEXT = ("COPA",)


class FolderSource(Source):
    """Named tasks of a folder, in the given order."""

    folder: str | None = Field(None, description="where the tasks are; default: the variable CL_BENCHMARK_DIR")
    tasks: tuple[str, ...] = Field(min_length=1, description="the names of the tasks, in order")
    time: str | None = Field(
        None, description="the key of a row that says when it is from, by which `time-slices` cuts"
    )
    skip_texts: tuple[str, ...] = Field((), description="texts that are not used, whatever their case and punctuation")

    @classmethod
    def recognises(cls, settings: Mapping[str, Any]) -> bool:
        tasks = settings.get("tasks")
        # an entry with mappings among its tasks is the hub's, which says what is wrong if it has names too
        return isinstance(tasks, list | tuple) and not any(isinstance(task, Mapping) for task in tasks)

    def located(self) -> Self:
        return self.model_copy(update={"folder": full_folder(self.folder, FOLDER_VARIABLE)})

    def stream(self, name: str, limits: Limits) -> Stream:
        folder = needed_folder(name, self.folder, FOLDER_VARIABLE)
        # in addition to what the stream's own limits skip
        limits = replace(limits, skip_texts=limits.skip_texts.union(map(bare_text, self.skip_texts)))
        paths = find_tasks(Path(folder))
        tasks = []
        for task in self.tasks:
            path = paths.get(canonical(task))
            if path is None:
                raise ValueError(f"folder {folder!r} has no task {task!r}: it has {', '.join(sorted(paths))}")
            tasks.append(folder_task(path, limits, self.time))
        return Stream(name, tuple(tasks))


def full_folder(folder: str | None, variable: str) -> str | None:
    """The full path of a folder that is given, or else by a variable of the environment; None where neither is."""
    folder = folder or os.environ.get(variable)
    if not folder:
        return None
    return full_path(folder)


def needed_folder(stream: str, folder: str | None, variable: str) -> str:
    """The same. Raises ValueError where neither is."""
    full = full_folder(folder, variable)
    if full is None:
        raise ValueError(f"stream {stream!r} reads a local folder: set `folder`, or {variable}")
    return full


def find_tasks(folder: Path) -> dict[str, Path]:
    """Every task folder below `folder`, by canonical name (see `canonical`).

    Raises ValueError where there is none, or where two have one name.
    """
    try:
        is_there = folder.is_dir()
    # no folder has such a name
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise ValueError(f"folder {str(folder)!r} does not exist")
    # found by train.json: a category may hold folders that are no tasks
    paths: dict[str, Path] = {}
    for file in sorted(folder.glob("*/*/train.json")):
        path = file.parent
        other = paths.setdefault(canonical(path.name), path)
        if other != path:
            one = other.relative_to(folder)
            raise ValueError(
                f"folder {str(folder)!r}: {str(one)!r} and {str(path.relative_to(folder))!r} have one name, "
                f"{canonical(path.name)!r}, since case and punctuation do not count; rename one of them"
            )
    if not paths:
        raise ValueError(f"folder {str(folder)!r} holds no task: expected <category>/<task>/train.json")
    return paths


def canonical(name: str) -> str:
    """A task's name without case and punctuation, so that `SST-2`, `sst2` and `sst-2` are one."""
    return "".join(filter(str.isalnum, name.lower()))


def folder_task(path: Path, limits: Limits = Limits(), time: str | None = None) -> Task:
    """The task in one folder, whose rows have their time under the key `time`.

    Raises ValueError with the file (and line, for broken JSON) that is wrong.
    """
    labels = _read_labels(path / "labels.json")
    category = path.parent.name
    lists_options = category not in ASKED_IN_TEXT
    instruction = INSTRUCTIONS.get(category, "")
    # open answers have no options to choose from
    if labels and lists_options:
        instruction += CHOOSE
    return Task(
        name=path.name,
        category=category,
        instruction=instruction,
        labels=labels,
        source=f"folder:{category}/{path.name}",
        load=partial(_load, path, time),
        limits=limits,
        dataset=canonical(path.name),
        check_files=file_checker(path, canonical(path.name)),
        lists_options=lists_options,
    )


def _read_labels(file: Path) -> tuple[str, ...]:
    labels = read_json(file)
    if isinstance(labels, list) and all(isinstance(label, str) and label.strip() for label in labels):
        return tuple(labels)
    raise ValueError(f"{file}: expected a list of label texts ([]: answers are open)")


def _load(path: Path, time: str | None, split: RawSplit) -> Sequence[Example]:
    file = path / f"{split}.json"
    rows = read_json(file)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a list of rows, found {type(rows).__name__}")
    if not rows:
        raise ValueError(f"{file}: the {split} split is empty")
    examples = []
    for number, row in enumerate(rows, start=1):
        if not _is_row(row):
            raise ValueError(f'{file}: row {number} is not {{"label": text, "sentence": text}}')
        examples.append(Example(row["sentence"], row["label"]))
    if time is None:
        return examples
    times = times_of([row.get(time) for row in rows], f"{file}: key {time!r}")
    return list(map(_at_time, examples, times))


def _at_time(example: Example, time: float | str) -> Example:
    return replace(example, time=time)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("sentence"), str) and isinstance(row.get("label"), str)


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises ValueError with the file, and the line where it is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: malformed JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8 text") from None
    # a whole number of thousands of digits; lists within lists within lists; a name that no file has
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
