"""Weights of other models than the one that is trained, for methods whose settings name some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from methods import OWN_MODEL
from orchestrator.config.model import ModelConfig
from orchestrator.models.families import load_family
from orchestrator.models.source import find_model

# The seed of a built-in model's weights where it is read under a name
NAMED_SEED = 0


def identity_of(config: ModelConfig, name: str) -> str:
    """A name for the exact weights of a folder or hub id. Raises ValueError, in one line, where there is no such model."""
    return find_model(_named(config, name)).identity


def weights_of(
    config: ModelConfig, labels: Sequence[str], seed: int, name: str, has_values: bool = True
) -> dict[str, Tensor]:
    """The parameters of a model but its task head, by name, read as the run's own model is. Raises ValueError.

    An empty name is the run's own model before training; "own" that model under its name, which is another draw where
    it is built in. Without values the tensors have shapes alone.
    """
    source = replace(find_model(_named(config, name)), has_values=has_values)
    # what is read while a run goes on must not move the generator that the run draws from
    with torch.random.fork_rng(devices=[]):
        family = load_family(source, _named(config, name), labels, NAMED_SEED if name else seed)
    heads = set(map(id, family.head()))
    weights = {}
    for parameter_name, parameter in family.module.named_parameters():
        if id(parameter) not in heads:
            weights[parameter_name] = parameter.detach()
    return weights


def _named(config: ModelConfig, name: str) -> ModelConfig:
    """The configuration of the model of that name, which reads as the run's own does."""
    if name in ("", OWN_MODEL, config.name):
        return config
    return config.model_copy(update={"name": name, "revision": None, "overrides": {}})
