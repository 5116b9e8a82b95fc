"""What can be trained in one pass, and the reason that a user reads where something cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.planning.fusing import why_not_fused
from orchestrator.planning.sequence_plan import SequencePlan

Make = Callable[..., SequencePlan]


def rated(make: Make, lr: float, method: Any = "lora", **changes: Any) -> SequencePlan:
    """A small sequence of that rate."""
    training = {"lr": lr, "global_batch": 8, **changes.pop("training", {})}
    return make(methods=[method], training=training, **{"overrides": {"dropout_rate": 0.0}, **changes})


@pytest.mark.parametrize("method", ["lora", "inclora", "olora"])
def test_settings_that_are_each_ones_own_may_differ(method: str, sequence_of: Make) -> None:
    sequences = [
        rated(sequence_of, 1e-3, method),
        rated(sequence_of, 3e-3, method),
        rated(sequence_of, 1e-3, method, training={"weight_decay": 0.1, "clip": None, "betas": (0.8, 0.9)}),
        rated(sequence_of, 1e-3, method, training={"schedule": "cosine", "warmup": 0.2, "outer": "rsqrt"}),
    ]
    assert why_not_fused(sequences) == ""


def test_penalties_of_a_method_may_differ(sequence_of: Make) -> None:
    weak = rated(sequence_of, 1e-3, {"tuning": {"name": "olora", "lambda2": 0.1}})
    strong = rated(sequence_of, 1e-3, {"tuning": {"name": "olora", "lambda2": 0.3}})
    assert why_not_fused([weak, strong]) == ""


@pytest.mark.parametrize(
    ("method", "changes", "reason"),
    [
        ("lora+migu", {}, "plug-in 'migu'"),
        ("moelora", {}, "'moelora' adds more to a model than plain LoRA layers"),
        ("ft", {}, "'full' adds more"),
        ({"tuning": "lora", "reference": "joint"}, {}, "'joint' is a reference run"),
        ({"tuning": {"name": "lora", "r": 4}}, {}, "its adapters are not made as those of"),
        ("lora", {"seeds": [8]}, "its seed is another one"),
        ("lora", {"model": "tiny-llama", "overrides": {}}, "its model is another one"),
        ("lora", {"stream": {"first": 2}}, "its stream is another one"),
        ("lora", {"out": "elsewhere"}, "its out is another one"),
        ("lora", {"training": {"global_batch": 4}}, "its training.global_batch is another one"),
        ("lora", {"training": {"epochs": 2}}, "its training.epochs is another one"),
        ("lora", {"training": {"budget": {"steps": 5}}}, "its training.budget is another one"),
        ("lora", {"training": {"micro_batch": "auto"}}, "micro_batch: auto"),
        ("lora", {"training": {"micro_batch": 4}}, "its training.micro_batch is another one"),
        ("lora", {"training": {"checkpoint_activations": True}}, "checkpoint_activations"),
        ("lora", {"training": {"compile": True}}, "compile"),
        # the same as the first sequence's
        ("lora", {"training": {"lr": 1e-3}}, "two of them train the same"),
    ],
)
def test_what_speaks_against_it_is_said(method: Any, changes: dict[str, Any], reason: str, sequence_of: Make) -> None:
    first = rated(sequence_of, 1e-3)
    assert reason in why_not_fused([first, rated(sequence_of, 3e-3, method, **changes)])


def test_a_model_with_dropout_of_its_own_is_refused(sequence_of: Make) -> None:
    changes = {"overrides": {"dropout_rate": 0.1}}
    sequences = [rated(sequence_of, 1e-3, **changes), rated(sequence_of, 3e-3, **changes)]
    assert why_not_fused(sequences) == "the model has dropout (dropout_rate = 0.1)"


def test_one_sequence_is_no_group(sequence_of: Make) -> None:
    assert "a single sequence" in why_not_fused([rated(sequence_of, 1e-3)])
    assert why_not_fused([]) != ""
