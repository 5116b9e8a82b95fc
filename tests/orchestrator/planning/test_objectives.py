"""Corpora and tasks with answers: which model and which method learns from which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from tests.conftest import small_config

CORPORA = {"name": "embedded-cpt", "first": 2, "max_train": 3, "max_test": 2}


def refusal(tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan(small_config(tmp_path, **{"stream": CORPORA, **changes}))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("model", "scoring"), [("tiny-bert", "masked"), ("tiny-llama", "auto")])
def test_an_encoder_fills_in_masks_where_streams_are_corpora(tmp_path: Path, model: str, scoring: str) -> None:
    (sequence,) = plan(small_config(tmp_path, model=model, stream=CORPORA))
    assert sequence.model.scoring == scoring
    (sequence,) = plan(small_config(tmp_path, model=model))
    assert sequence.model.scoring == "auto"


def test_what_a_model_does_not_learn_from_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, model="tiny-t5") == (
        "stream 'embedded-cpt': task 'karst' is a corpus, and 'tiny-t5' is an encoder-decoder, which learns to answer; corpora "
        "go with decoders and encoders"
    )
    assert refusal(tmp_path, model="tiny-bert", scoring="head") == (
        "stream 'embedded-cpt': task 'karst' is a corpus, and with model.scoring: head 'tiny-bert' learns to answer; an encoder "
        "reads corpora with model.scoring: masked"
    )
    assert refusal(tmp_path, model="tiny-bert", scoring="masked", stream={}) == (
        "stream 'embedded': task 'reviews' asks for answers, and with model.scoring: masked 'tiny-bert' reads corpora alone"
    )


def test_one_encoder_does_not_read_both(tmp_path: Path) -> None:
    both = [CORPORA, {"name": "embedded", "first": 1, "max_train": 8, "max_test": 4}]
    assert refusal(tmp_path, model="tiny-bert", streams=both) == (
        "streams: corpora and tasks with answers, and 'tiny-bert' is an encoder, which has another head for each; make them two "
        "experiments"
    )
    # a decoder does
    assert len(plan(small_config(tmp_path, model="tiny-llama", streams=both))) == 2


def test_bits_per_byte_are_of_all_tokens(tmp_path: Path) -> None:
    message = refusal(tmp_path, model="tiny-bert", stream={**CORPORA, "scorer": "bits-per-byte"})
    assert message.startswith("stream 'embedded-cpt': task 'karst': bits-per-byte counts the bits of every token, and")


@pytest.mark.parametrize("method", ["nmc", "fetril", "l2p", "lfpt5", "epi", "mocl", "sapt", "dynamic-conpet", "demix"])
def test_a_method_that_needs_labels_or_answers_says_why(tmp_path: Path, method: str) -> None:
    message = refusal(tmp_path, model="tiny-llama", methods=[method])
    assert message.startswith("stream 'embedded-cpt': task 'karst' is a corpus, and")
    assert f"method '{method}' does not learn from one: it" in message
