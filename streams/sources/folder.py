"""Tasks from a local folder in the layout of the public 15-task benchmark.

`<folder>/<category>/<task>/{train.json, test.json, labels.json}`: a split is a JSON list of
`{"label": str, "sentence": str}`, `labels.json` the list of options. A `dev.json` is ignored: in the public files it
is the test split, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from streams.base import Example, Limits, Task

# The instructions published with the benchmark (O-LoRA, arXiv 2310.14152). COPA has none: its rows ask their question.
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


def find_tasks(folder: Path) -> dict[str, Path]:
    """Every task folder below `folder`, by canonical name (see `canonical`). Raises ValueError where there is none."""
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r} does not exist")
    found = {canonical(path.parent.name): path.parent for path in sorted(folder.glob("*/*/train.json"))}
    if not found:
        raise ValueError(f"folder {str(folder)!r} holds no task: expected <category>/<task>/train.json")
    return found


def canonical(name: str) -> str:
    """A task's name without case and punctuation, so that `SST-2`, `sst2` and `sst-2` are one."""
    return "".join(c for c in name.lower() if c.isalnum())


def folder_task(path: Path, limits: Limits = Limits()) -> Task:
    """The task in one folder. Raises ValueError with the file (and line, for broken JSON) that is wrong."""
    labels = _read_json(path / "labels.json")
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(f"{path / 'labels.json'}: expected a list of label texts")
    if not labels:
        raise ValueError(f"{path / 'labels.json'}: the label set is empty")
    category = path.parent.name
    return Task(
        name=path.name,
        category=category,
        instruction=INSTRUCTIONS.get(category, "") + CHOOSE,
        labels=tuple(labels),
        source=f"folder:{category}/{path.name}",
        load=partial(_load, path),
        limits=limits,
        dataset=canonical(path.name),
    )


def _load(path: Path, split: Literal["train", "test"]) -> Sequence[Example]:
    file = path / f"{split}.json"
    rows = _read_json(file)
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a list of rows, found {type(rows).__name__}")
    if not rows:
        raise ValueError(f"{file}: the {split} split is empty")
    for number, row in enumerate(rows, 1):
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("sentence"), str)
            or not isinstance(row.get("label"), str)
        ):
            raise ValueError(f'{file}: row {number} is not {{"label": text, "sentence": text}}')
    return [Example(row["sentence"], row["label"]) for row in rows]


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: malformed JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8 text") from None
