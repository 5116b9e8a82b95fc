"""Labels chosen anew, one example and one label or token at a time, without padding or cache."""

from __future__ import annotations

from dataclasses import replace

import torch

from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Family
from orchestrator.training.learner import Learner
from tests.orchestrator.models.likelihoods import CPU, loss_of, sharpened

# of one to three words, some of which begin others
LABELS = (
    "good",
    "good bad",
    "bad",
    "lovely",
    "lovely good bad",
    "dirty bad good",
    "room",
    "room cold",
    "hotel",
    "music warm",
)


def likeliest(family: Family, source: list[int], options: list[list[int]]) -> int:
    """The index of the option that is likeliest as a whole."""
    losses = [loss_of(family, source, option) for option in options]
    return losses.index(min(losses))


@torch.no_grad()
def walked(family: Family, source: list[int], options: list[list[int]]) -> int:
    """The index of the option that is reached when the likeliest token that some option goes on with is taken each time."""
    written: list[int] = []
    while written not in options:
        going_on = {option[len(written)] for option in options if option[: len(written)] == written}
        losses = {token: loss_of(family, source, [*written, token]) for token in going_on}
        written.append(min(losses, key=losses.__getitem__))
    return options.index(written)


@torch.no_grad()
def assert_choices_are_the_loops(learner: Learner, scoring: str) -> None:
    """Compare the labels that are chosen for test examples of different lengths; both ways and free answers differ."""
    family = sharpened(learner.family)
    assert isinstance(family, EncoderDecoder)
    asked = learner.stream.tasks[0]
    features = family.features(asked, asked.read("test"))
    task = replace(asked, labels=LABELS)
    assert len({len(feature["source"]) for feature in features}) > 1, "nothing is padded"
    options = family.answer_ids(LABELS)
    assert len(set(map(len, options))) > 1
    by_rank = [LABELS[likeliest(family, feature["source"], options)] for feature in features]
    by_walk = [LABELS[walked(family, feature["source"], options)] for feature in features]
    assert by_rank != by_walk and len(set(by_rank)) > 1 and len(set(by_walk)) > 1
    family.config = family.config.model_copy(update={"scoring": scoring})
    found = family.answers(task, features, CPU)
    assert [option for _, option in found] == [None] * len(found)
    assert [answer for answer, _ in found] == {"rank": by_rank, "constrained": by_walk}[scoring]
