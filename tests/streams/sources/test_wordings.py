"""The word lists of the generated tasks: a cue tells its class for sure, and both streams are made alike."""

from __future__ import annotations

import pytest

from streams.sources.embedded import GENERATED, generate
from streams.sources.wordings import EMBEDDED, EMBEDDED_TUNING, Wording


@pytest.mark.parametrize("wording", [w for wordings in GENERATED.values() for w in wordings], ids=lambda w: w.name)
def test_a_cue_word_belongs_to_one_class_and_fills_every_template(wording: Wording) -> None:
    cues = [word for words in wording.cues.values() for word in words]
    assert len(cues) == len(set(cues))
    assert not set(cues) & {*wording.neutral, *wording.cues}
    for template in wording.templates:
        assert (template.count("{a}"), template.count("{b}")) == (1, 1)
    for example in generate(wording, 100, 0, "train"):
        found = [label for label, words in wording.cues.items() for word in words if word in example.text.split()]
        assert found == [example.label] * 2


def shape(wording: Wording) -> tuple[int, int, int, list[int]]:
    return len(wording.templates), len(wording.neutral), len(wording.cues), [len(c) for c in wording.cues.values()]


def test_the_two_streams_have_one_shape() -> None:
    assert [shape(w) for w in EMBEDDED] == [shape(w) for w in EMBEDDED_TUNING]
    assert [len(w.cues) for w in EMBEDDED_TUNING] == [2, 4, 5, 4, 4]
