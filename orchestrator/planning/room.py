"""Whether tasks fit into a model's lengths: a prompt that leaves no room for the text, labels longer than any answer."""

from __future__ import annotations

from functools import cache
from typing import Any

from orchestrator.config.model import ModelConfig
from orchestrator.models.loading import load_tokenizer
from orchestrator.models.source import ModelSource
from streams import Stream, Task


def doubts_about_room(source: ModelSource, model: ModelConfig, stream: Stream) -> list[str]:
    """A line for each task of which a model that writes its answers sees no text, or can never write a label.

    Neither is a mistake of form, and both leave scores that say nothing. Reads no split.
    """
    tokenizer = _tokenizer(source, model.model_dump_json())
    lines = []
    for task in stream.tasks:
        # a corpus is cut into blocks that fit
        if task.objective == "text":
            continue
        for doubt in _doubts_of(tokenizer, model, task):
            lines.append(f"stream {stream.name!r}, task {task.name!r}: {doubt}")
    return lines


# Cached: each stream and seed asks again. By JSON, as a model's settings cannot be hashed
@cache
def _tokenizer(source: ModelSource, config_json: str) -> Any:
    return load_tokenizer(source, ModelConfig.model_validate_json(config_json))


def _doubts_of(tokenizer: Any, model: ModelConfig, task: Task) -> list[str]:
    lines = []
    if model.input != "text":
        frame = len(tokenizer(str(task.prompt(""))).input_ids)
        if frame >= model.max_source:
            lines.append(
                f"its prompt has {frame} tokens before any text is in it, and model.max_source is {model.max_source}: no text is "
                "read; raise it, or give the stream a shorter `prompt`"
            )
    too_long = []
    for label in task.labels:
        # one more is the end, without which an answer goes on
        if len(tokenizer(label, add_special_tokens=False).input_ids) + 1 > model.max_target:
            too_long.append(label)
    if too_long:
        lines.append(
            f"{len(too_long)} of {len(task.labels)} labels have more tokens than model.max_target, {model.max_target}, lets an "
            f"answer have, such as {_shortened(too_long[0])!r}: no answer can be one of them"
        )
    return lines


def _shortened(label: str) -> str:
    if len(label) <= 40:
        return label
    return label[:40] + "…"
