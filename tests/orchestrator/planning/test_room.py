"""Whether tasks fit into a model's lengths."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_config
from orchestrator.config.model import ModelConfig
from orchestrator.models.source import find_model
from orchestrator.planning.planner import plan
from orchestrator.planning.room import doubts_about_room
from streams import Stream, Task


def doubts(labels: tuple[str, ...], max_source: int, max_target: int, **model: str) -> list[str]:
    def load(split: str) -> list[object]:
        raise AssertionError("a split was read")

    described = ModelConfig.model_validate(
        {"name": "tiny-t5", "max_source": max_source, "max_target": max_target, **model}
    )
    stream = Stream("s", (Task("t", "", "", labels, "here", load),))  # type: ignore[arg-type]
    return doubts_about_room(find_model(described), described, stream)


def test_a_prompt_that_leaves_no_room_for_a_text_is_told() -> None:
    """`Option: good, bad ` and `Answer:`, a token each word and sign, a blank line end between, and the end: 8 to 10."""
    (line,) = doubts(("good", "bad"), 8, 8)
    frame = int(line.split("its prompt has ")[1].split()[0])
    assert 8 <= frame <= 10
    assert line == (
        f"stream 's', task 't': its prompt has {frame} tokens before any text is in it, and model.max_source is 8: no text is "
        "read; raise it, or give the stream a shorter `prompt`"
    )
    assert len(doubts(("good", "bad"), frame, 8)) == 1
    assert doubts(("good", "bad"), frame + 1, 8) == []
    # who reads the text alone has all of the room
    assert doubts(("good", "bad"), 8, 8, input="text") == []


def test_labels_that_no_answer_has_room_for_are_told() -> None:
    # a word of the embedded stream is one token; an emoji that the tokenizer does not know is four bytes and a blank's sign
    labels = ("good", "bad lovely awful", "👎", "good " * 30 + "bad")
    (line,) = doubts(labels, 200, 4)
    assert line == (
        "stream 's', task 't': 2 of 4 labels have more tokens than model.max_target, 4, lets an answer have, such as '👎': "
        "no answer can be one of them"
    )
    assert "1 of 4 labels" in doubts(labels, 200, 6)[0]
    assert "'good good good good good good good good …'" in doubts(labels, 200, 6)[0]
    assert doubts(labels[:2], 200, 4) == []
    assert len(doubts(labels[:2], 200, 3)) == 1


@pytest.mark.parametrize(("model", "is_told"), [("tiny-t5", True), ("tiny-llama", True), ("tiny-bert", False)])
def test_it_is_told_of_models_that_write(model: str, is_told: bool, tmp_path: Path) -> None:
    told: list[str] = []
    few = ["methods=[ft]", f"model.name={model}", "streams.first=2", "streams.max_train=8", "streams.max_test=4"]
    plan(load_config(None, few, str(tmp_path)), warn=told.append)
    assert told == []
    plan(load_config(None, [*few, "model.max_source=8"], str(tmp_path)), warn=told.append)
    assert [("its prompt has" in line) for line in told] == [True, True] * is_told
