"""What all families have: texts that are too long, and the mask of a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.training.learner import Learner
from streams import Prompt
from tests.conftest import FAMILIES


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-roberta"])
def test_the_mask_of_a_batch_marks_the_tokens(model: str, learner_of: Callable[..., Learner]) -> None:
    """Of encoders; the files of the families that generate have theirs by hand."""
    learner = learner_of(model=model)
    features = learner.features(0)
    for count in range(1, 9):
        batch = learner.family.collate(features[:count])
        assert batch.source.mask.sum(1).tolist() == [len(feature["source"]) for feature in features[:count]]


@pytest.mark.parametrize("model", FAMILIES)
def test_a_long_text_is_shortened_and_its_question_kept(model: str, learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model=model).family
    prompt = Prompt("Task:Topic ", " ".join(["profit"] * 200), " Answer:")
    (ids,) = family.encode([prompt])
    assert 46 <= len(ids) <= family.config.max_source == 48
    text = family.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.strip().startswith("Task:Topic profit")
    assert text.strip().endswith("Answer:")
    short = family.encode([Prompt("a ", "b", " c")])[0]
    assert short == family.tokenizer("a b c").input_ids
