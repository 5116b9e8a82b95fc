"""Pairs of texts that a method trains on beside the batch: padded for the model, and their losses, pair by pair.

Shapes: n pairs, S tokens of the longest input, D of the longest answer, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import at_least_float32
from methods.batch import IGNORED

# (source, target) as token ids. Plain tuples and lists: `stable_number` reads how they are printed.
Pair = tuple[list[int], list[int]]


def padded(sequences: Sequence[Sequence[int]], value: int, device: torch.device) -> Tensor:
    """[n, longest] with `value` behind the shorter sequences."""
    width = max(map(len, sequences))
    filled = []
    for sequence in sequences:
        filled.append([*sequence, *[value] * (width - len(sequence))])
    return torch.tensor(filled, device=device)


def answer_logits(
    model: nn.Module, pairs: Sequence[Pair], encodes: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(logits [n, D, V], labels [n, D]) of the targets after their sources; `encodes`: for an encoder-decoder."""
    inputs = []
    labels = []
    for source, target in pairs:
        if encodes:
            inputs.append(source)
            labels.append(target)
        else:
            inputs.append(source + target)
            labels.append([IGNORED] * len(source) + target)
    # any token may pad, as its mask is 0
    ids = padded(inputs, 0, device)
    ones = [[1] * len(sequence) for sequence in inputs]
    mask = padded(ones, 0, device)
    labels_nD = padded(labels, IGNORED, device)
    if encodes:
        shifted = model.prepare_decoder_input_ids_from_labels(labels=labels_nD)  # type: ignore[operator]
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted).logits, labels_nD
    # a decoder's scores at a token are those of the next one
    return model(input_ids=ids, attention_mask=mask).logits[:, :-1], labels_nD[:, 1:]


def token_means(logits: Tensor, labels: Tensor) -> Tensor:
    """[n]: each pair's mean cross-entropy over its answer's tokens."""
    # cross_entropy wants the classes in the second dimension
    logits_nVD = at_least_float32(logits).transpose(1, 2)
    losses_nD = F.cross_entropy(logits_nVD, labels, ignore_index=IGNORED, reduction="none")
    return losses_nD.sum(1) / (labels != IGNORED).sum(1)


def distances(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
    """[n]: each pair's mean over its answer's tokens of KL(teacher ‖ student)."""
    wanted = at_least_float32(teacher).log_softmax(-1)
    found = at_least_float32(student).log_softmax(-1)
    kl_nD = (wanted.exp() * (wanted - found)).sum(-1)
    asked_nD = labels != IGNORED
    return (kl_nD * asked_nD).sum(1) / asked_nD.sum(1)


def stable_number(*parts: object) -> int:
    """A number below 2^56 that depends on how the parts are printed; unlike `hash`, the same in every process."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")
