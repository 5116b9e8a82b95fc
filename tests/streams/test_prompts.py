"""Prompt templates."""

from __future__ import annotations

import dataclasses

import pytest

from streams import (
    PROMPTS,
    Prompt,
    find_prompt,
    named_stream,
    vocabulary,
)
from tests.streams.examples import task


def test_the_published_prompt() -> None:
    prompt = str(task().prompt("A sentence."))
    assert prompt == "Task:Cat\nDataset:t\nWell? Option: yes, no \nA sentence.\nAnswer:"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("plain", Prompt("", "A {b}.", "")),
        ("instruction", Prompt("Well? \n", "A {b}.", "\nOption: yes, no\nAnswer:")),
        ("{category}/{dataset}: {text}\n{options}?", Prompt("Cat/t: ", "A {b}.", "\nyes, no?")),
        ("{{{text}}}", Prompt("{", "A {b}.", "}")),
    ],
)
def test_templates(template: str, prompt: Prompt) -> None:
    assert dataclasses.replace(task(), template=find_prompt(template)).prompt("A {b}.") == prompt


def test_a_segment_with_an_empty_field_is_left_out() -> None:
    bare = dataclasses.replace(task(labels=()), category="", instruction="")
    expected = {"benchmark": "A.\nAnswer:", "instruction": "A.\nAnswer:", "Of {options}:\n{instruction}{text}": "A."}
    for template, prompt in expected.items():
        assert str(dataclasses.replace(bare, template=find_prompt(template)).prompt("A.")) == prompt


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("plane", "unknown prompt 'plane'. Did you mean 'plain'?"),
        ("{option} {text}", "unknown field 'option'. Did you mean 'options'?"),
        ("{} {text}", "unknown field ''"),
        ("{instruction}", "exactly once, this one 0 times"),
        ("{text}{text}", "exactly once, this one 2 times"),
        ("{text!r}", "field 'text' is written with a format; write {text}"),
        ("{text:>9}", "field 'text' is written with a format"),
        ("{text", "expected '}' before end of string"),
    ],
)
def test_a_wrong_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        find_prompt(template)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_prompts_have_no_words_beside_the_published_ones() -> None:
    """The vocabulary of the built-in models is made of the published prompt."""
    known = set(vocabulary())
    (first, *_) = named_stream("embedded").tasks
    for name in PROMPTS:
        prompt = str(dataclasses.replace(first, template=find_prompt(name)).prompt(" "))
        assert set(prompt.split()) <= known, name
