"""Streams of tasks: where text comes from, in which order, how it is asked, and how its content is named."""

from streams.catalogue import (
    BENCHMARK_SPLIT,
    DESCRIPTIONS,
    FOLDER_STREAMS,
    ORDERS,
    READ_FROM_FOLDER,
    named_stream,
    resolve_source,
    stream_sizes,
)
from streams.corpora.corpus import Corpus, EndTask
from streams.doubts import doubts
from streams.holdout import LEVELS, RELATED, STATEMENTS, HoldoutViolation, Level, Proof, prove
from streams.label_splits import half_of_labels, tasks_of_labels
from streams.leaks import Leak, LeakKind, find_leaks
from streams.names import unknown_name
from streams.prompts import BENCHMARK, PROMPTS, Prompt, PromptTemplate, find_prompt
from streams.scenarios import SCENARIOS, Scenario, find_scenarios
from streams.scorer_names import (
    FROM_LIKELIHOOD,
    NEED_LABELS,
    NORMAL_FORMS,
    RUNS_CODE,
    SCORER_VERSIONS,
    check_labels,
    check_scorer,
)
from streams.sources import SOURCES, find_source, source_names
from streams.sources.corpus import CorpusSource
from streams.sources.embedded import EmbeddedSource, vocabulary
from streams.sources.files import FilesSource, FileTask
from streams.sources.folder import FolderSource
from streams.sources.hub import HubSource, HubTask
from streams.sources.source import Source, SourceSettings, refuse_boolean, refuse_no_number
from streams.splits import SPLITS, Example, Limits, Objective, RawSplit, Split, carve_dev
from streams.stream import Stream
from streams.task import DEFAULT_SCORER, SealedSplit, Task
from streams.text import bare_text, normalise_answer

__all__ = [
    "BENCHMARK",
    "BENCHMARK_SPLIT",
    "DEFAULT_SCORER",
    "DESCRIPTIONS",
    "FOLDER_STREAMS",
    "FROM_LIKELIHOOD",
    "LEVELS",
    "NEED_LABELS",
    "NORMAL_FORMS",
    "ORDERS",
    "PROMPTS",
    "READ_FROM_FOLDER",
    "RELATED",
    "RUNS_CODE",
    "SCENARIOS",
    "SCORER_VERSIONS",
    "SOURCES",
    "SPLITS",
    "STATEMENTS",
    "Corpus",
    "CorpusSource",
    "EmbeddedSource",
    "EndTask",
    "Example",
    "FileTask",
    "FilesSource",
    "FolderSource",
    "HoldoutViolation",
    "HubSource",
    "HubTask",
    "Leak",
    "LeakKind",
    "Level",
    "Limits",
    "Objective",
    "Prompt",
    "PromptTemplate",
    "Proof",
    "RawSplit",
    "Scenario",
    "SealedSplit",
    "Source",
    "SourceSettings",
    "Split",
    "Stream",
    "Task",
    "bare_text",
    "carve_dev",
    "check_labels",
    "check_scorer",
    "doubts",
    "find_leaks",
    "find_prompt",
    "find_scenarios",
    "find_source",
    "half_of_labels",
    "named_stream",
    "normalise_answer",
    "prove",
    "refuse_boolean",
    "refuse_no_number",
    "resolve_source",
    "source_names",
    "stream_sizes",
    "tasks_of_labels",
    "unknown_name",
    "vocabulary",
]
