"""Continual-learning methods: the seam (`base` and `seam`), one file a method, and the names they go by (`registry`)."""

from __future__ import annotations

from pydantic import ValidationError

from methods.base import (
    OWN_MODEL,
    Context,
    Method,
    Settings,
    State,
    TuningMethod,
    at_least_float32,
    generator,
    gradients_alone,
    trainable,
)
from methods.batch import IGNORED, NO_CLASS, Batch, TokenStream
from methods.presets import PRESETS, PUBLISHED
from methods.reference_runs import REFERENCE_RUNS, ReferenceRun, RunKind, run_kind
from methods.registry import METHODS, full_name, method_class, registered_methods, unknown
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses
from methods.seam.data_policy import DataPolicy, Example
from methods.seam.scored_weights import ScoredWeights
from methods.seam.stored_form import StoredForm
from methods.source_code import is_ours, source_of
from methods.spec import MethodSpec, Part, method_spec
from methods.stack import Stack

__all__ = [
    "IGNORED",
    "METHODS",
    "NO_CLASS",
    "OWN_MODEL",
    "PRESETS",
    "PUBLISHED",
    "REFERENCE_RUNS",
    "Batch",
    "CacheFields",
    "Card",
    "Context",
    "Cost",
    "DataPolicy",
    "Example",
    "ExtraPasses",
    "Method",
    "MethodSpec",
    "Part",
    "ReferenceRun",
    "RunKind",
    "ScoredWeights",
    "Settings",
    "Stack",
    "State",
    "StoredForm",
    "TokenStream",
    "TuningMethod",
    "ValidationError",
    "at_least_float32",
    "full_name",
    "generator",
    "gradients_alone",
    "is_ours",
    "method_class",
    "method_spec",
    "registered_methods",
    "run_kind",
    "source_of",
    "trainable",
    "unknown",
]
