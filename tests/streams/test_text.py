"""Normal forms of texts and answers."""

from __future__ import annotations

import pytest

from streams import (
    bare_text,
    normalise_answer,
)


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("Really,  GOOD!\n", "really good"),
        ("it’s “good” — yes", "its good yes"),
        ("café 5 €", "café 5 €"),
        ("!!!", "!!!"),
        (":)", ":)"),
        ("", ""),
    ],
)
def test_bare_texts(given: str, bare: str) -> None:
    assert bare_text(given) == bare


@pytest.mark.parametrize(
    ("given", "normal"),
    [("Very  Negative.", "very negative"), ("Science & Mathematics", "science mathematics"), ("TRUE", "true")],
)
def test_answers_are_normalised(given: str, normal: str) -> None:
    assert normalise_answer(given) == normal
