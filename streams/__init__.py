"""Streams of tasks: where text comes from, in which order, and how its content is named."""

from streams.base import SPLITS, Example, Limits, Prompt, Split, Stream, Task, carve_dev, normalise_answer
from streams.catalogue import DESCRIPTIONS, ORDERS, folder_stream, hub_stream, named_stream
from streams.embedded import vocabulary
from streams.hub import HubTask

__all__ = [
    "DESCRIPTIONS",
    "ORDERS",
    "SPLITS",
    "Example",
    "HubTask",
    "Limits",
    "Prompt",
    "Split",
    "Stream",
    "Task",
    "carve_dev",
    "folder_stream",
    "hub_stream",
    "named_stream",
    "normalise_answer",
    "vocabulary",
]
