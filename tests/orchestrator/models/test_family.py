"""What all families have: texts that are too long, and the mask of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from methods import NO_CLASS
from orchestrator.training.learner import Learner
from streams import Example, Prompt
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


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_a_guest_is_asked_as_its_own_task_asks(model: str, learner_of: Callable[..., Learner]) -> None:
    mixed = {"first": 2, "scenario": {"name": "mixture", "share": 0.25, "tasks": ["reviews"]}}
    learner = learner_of(model=model, stream=mixed)
    reviews, headlines = learner.stream.tasks
    guests = headlines.read("train")[24:]
    assert len(guests) == 8
    features = learner.features(1)
    assert len(features) == 32
    for guest, feature in zip(guests, features[24:], strict=True):
        # as reviews would read the same text
        own = Example(guest.text, guest.label)
        assert learner.family.features(reviews, [own]) == [feature]
        assert learner.family.features(headlines, [replace(guest, prompt=None)]) != [feature] or model == "tiny-bert"


def test_a_guest_of_another_stream_has_no_class(learner_of: Callable[..., Learner]) -> None:
    mixed = {"first": 2, "scenario": {"name": "mixture", "share": 0.25, "general": "embedded-tuning"}}
    classes = [feature["class_index"] for feature in learner_of(stream=mixed).features(0)]
    assert set(classes[:24]) == {0, 1}
    assert set(classes[24:]) == {NO_CLASS}
