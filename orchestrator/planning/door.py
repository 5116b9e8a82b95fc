"""What of a model and a method can be refused before anything starts, from the model's shapes alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from methods import Batch, Context, MethodSpec
from orchestrator.config.model import ModelConfig
from orchestrator.errors import shown
from orchestrator.logs import reason
from orchestrator.models.blocks import shrink_frozen
from orchestrator.models.families import load_family
from orchestrator.models.family import Family, Feature
from orchestrator.models.source import ModelSource
from orchestrator.models.weights.other_models import weights_of

# A skeleton's head needs some labels; which, is of no account
LABELS = ("no", "yes")


def check_model(source: ModelSource, config: ModelConfig) -> None:
    """Raises ValueError where the model cannot read texts as configured."""
    _check_model(replace(source, has_values=False), config.model_dump_json())


def check_method(source: ModelSource, config: ModelConfig, spec: MethodSpec) -> None:
    """Raises ValueError where the method cannot be built on the model."""
    # what trains nothing is tried for its base alone
    if spec.trains_by_gradient or config.base != "float32":
        _check_method(replace(source, has_values=False), config.model_dump_json(), spec.model_dump_json())


# Cached: an experiment asks for each seed and stream again. By JSON, as neither a model's nor a method's settings can be hashed
@cache
def _check_model(source: ModelSource, config_json: str) -> None:
    config = ModelConfig.model_validate_json(config_json)
    skeleton = _skeleton(source, config)
    tokenizer = skeleton.tokenizer
    if skeleton.pad is None:
        raise ValueError(f"model {config.name!r}: its tokenizer has neither a padding token nor an end token")
    if skeleton.generates and tokenizer.eos_token_id is None:
        raise ValueError(f"model {config.name!r}: its tokenizer has no end token, without which no answer ends")
    rows = _base_of(skeleton).get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"model {config.name!r}: its tokenizer has {len(tokenizer)} tokens, more than the {rows} of its embedding"
        )
    _check_positions(skeleton)
    _check_shapes(source, skeleton)


def _skeleton(source: ModelSource, config: ModelConfig) -> Family:
    """The model without values. Raises ValueError where none can be built as its configuration says."""
    try:
        return load_family(source, config, LABELS, seed=0)
    # these say it in words of ours
    except ValueError:
        raise
    # sizes that do not go together or are none end in whatever their architecture's code runs into first
    except Exception as error:
        what = "its config.json"
        if config.overrides:
            what = f"model.overrides {shown(config.overrides)}"
        raise ValueError(f"model {config.name!r}: it cannot be built as {what} says: {reason(error)}") from error


def _base_of(family: Family) -> Any:
    """The model of transformers, which a sentence encoder wraps in a module of ours."""
    return getattr(family.module, "encoder", family.module)


def _check_positions(family: Family) -> None:
    """Raises ValueError where a text of `max_source` tokens has more than the model has learned positions for."""
    config = family.config
    longest = config.max_source
    # a decoder reads the text and its answer in one stream
    described: Any = family.module.config
    if family.generates and not described.is_encoder_decoder:
        longest += config.max_target
    for name, module in family.module.named_modules():
        # BERT's position_embeddings, BART's and OPT's embed_positions, GPT-2's wpe
        if not isinstance(module, nn.Embedding) or not re.search(r"position|(^|\.)wpe$", name):
            continue
        # RoBERTa counts from behind its padding index; BART and OPT from 2
        first = getattr(module, "offset", 0)
        if module.padding_idx is not None:
            first = module.padding_idx + 1
        positions = module.num_embeddings - first
        if longest > positions:
            what = f"model.max_source: {config.max_source}"
            if longest > config.max_source:
                what += f" and max_target: {config.max_target}"
            raise ValueError(f"{what}: more tokens than the {positions} positions of {config.name!r}")


def _check_shapes(source: ModelSource, skeleton: Family) -> None:
    """Raises ValueError where a folder's weights are of other sizes than its config.json says. Reads the files' headers alone."""
    if source.path is None or not Path(source.path).is_dir():
        return
    wanted = {name: list(value.shape) for name, value in skeleton.module.state_dict().items()}
    for file in sorted(Path(source.path).glob("*.safetensors")):
        with safe_open(file, "pt") as saved:
            for name in saved.keys():  # noqa: SIM118
                shape = wanted.get(name)
                found = saved.get_slice(name).get_shape()
                # a head for other labels is drawn anew
                if shape is not None and shape != found and shape[:1] != [len(LABELS)]:
                    raise ValueError(
                        f"model {skeleton.config.name!r}: weight {name!r} is {found} in its file and {shape} by its config.json"
                    )


@cache
def _check_method(source: ModelSource, config_json: str, spec_json: str) -> None:
    config = ModelConfig.model_validate_json(config_json)
    spec = MethodSpec.model_validate_json(spec_json)
    skeleton = _skeleton(source, config)
    shared_weights = not spec.tuning_type.card.per_task_weights
    context = Context(
        seed=0,
        forward=skeleton.forward,
        labels=(len(LABELS),),
        shared_weights=shared_weights,
        model_weights=partial(weights_of, config, LABELS, 0, has_values=False),
    )
    stack = spec.build(context)
    try:
        with warnings.catch_warnings():
            # that weights cannot be copied into what has no values is what is meant here
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
            with torch.device("meta"):
                skeleton.module = stack.prepare(skeleton.module, skeleton.head())
            # of an adapter for each task, the first one's
            stack.grow(skeleton.module, 1)
        shrink_frozen(skeleton.module, config.base)
        stack.check_model(skeleton.module, _two_texts(skeleton))
    except ValueError as error:
        raise ValueError(f"methods: {spec.label!r} on model {config.name!r}: {error}") from error


def _two_texts(family: Family) -> Batch:
    """Two texts of different lengths, of which only the lengths count."""
    features: list[Feature] = []
    for length in (5, 3):
        target = []
        if family.generates:
            target = [0, 0]
        features.append({"source": [0] * length, "target": target, "class_index": 0})
    return family.collate(features)
