"""Streams of tasks: where text comes from, in which order, and how its content is named."""

from streams.base import (
    SPLITS,
    Example,
    Limits,
    Prompt,
    SealedSplit,
    Split,
    Stream,
    Task,
    bare_text,
    carve_dev,
    half_of_labels,
    normalise_answer,
)
from streams.catalogue import (
    BENCHMARK_SPLIT,
    DESCRIPTIONS,
    FOLDER_STREAMS,
    ORDERS,
    folder_stream,
    hub_stream,
    named_stream,
)
from streams.holdout import LEVELS, RELATED, STATEMENTS, HoldoutViolation, Level, Proof, prove
from streams.sources.embedded import vocabulary
from streams.sources.hub import HubTask

__all__ = [
    "BENCHMARK_SPLIT",
    "DESCRIPTIONS",
    "FOLDER_STREAMS",
    "LEVELS",
    "ORDERS",
    "RELATED",
    "SPLITS",
    "STATEMENTS",
    "Example",
    "HoldoutViolation",
    "HubTask",
    "Level",
    "Limits",
    "Prompt",
    "Proof",
    "SealedSplit",
    "Split",
    "Stream",
    "Task",
    "bare_text",
    "carve_dev",
    "folder_stream",
    "half_of_labels",
    "hub_stream",
    "named_stream",
    "normalise_answer",
    "prove",
    "vocabulary",
]
