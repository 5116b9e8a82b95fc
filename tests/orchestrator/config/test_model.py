"""What may be said of the model."""

from __future__ import annotations

import pytest

from orchestrator.config.model import ModelConfig
from tests.orchestrator.config.refusal import refused


def test_what_is_not_said_of_a_model() -> None:
    """Every choice that can follow from the model is left to it; the lengths are those of the published runs."""
    model = ModelConfig()
    assert (model.name, model.revision, model.overrides) == ("tiny-t5", None, {})
    assert {model.scoring, model.input, model.precision} == {"auto"}
    assert (model.max_source, model.max_target) == (512, 50)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.max_source=7", ["model.max_source", "greater than or equal to 8", "found 7"]),
        ("model.max_target=1", ["model.max_target", "greater than or equal to 2", "found 1"]),
        ("model.scoring=generation", ["model.scoring", "'generate'", "'generation'"]),
        ("model.input=question", ["model.input", "'prompt'", "'question'"]),
        ("model.precision=fp16", ["model.precision", "'bf16'", "'fp16'"]),
        ("model.nam=tiny-t5", ["unknown key 'nam'. Did you mean 'name'?"]),
        ("model.overrides=[32]", ["model.overrides"]),
    ],
)
def test_a_model_that_cannot_be_is_refused(override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message


def test_the_shortest_lengths_are_allowed() -> None:
    """Two tokens of an answer are a word and the end."""
    model = ModelConfig(max_source=8, max_target=2)
    assert (model.max_source, model.max_target) == (8, 2)
