"""A benchmark in the form of the harness's own task files, which needs no download."""

from __future__ import annotations

import json
from pathlib import Path

ROWS = [
    {"question": "the film is", "choices": ["good", "a long bad film"], "answer": 0},
    {"question": "the book about the sea", "choices": ["bad", "good"], "answer": 1},
    {"question": "is it", "choices": ["bad", "a film about the sea"], "answer": 1},
    {"question": "the long day", "choices": ["good", "bad"], "answer": 0},
    {"question": "a", "choices": ["the", "sea"], "answer": 0},
]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {cache}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def write_probe(folder: Path, name: str) -> Path:
    """Write the benchmark's two files; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    cache = folder.parent / f"{folder.name}-cache"
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, rows=rows, cache=cache))
    return folder
