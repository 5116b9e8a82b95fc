"""Loading a model and its tokenizer with transformers, or making those that are built in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from orchestrator.models.builtin import BUILTIN, TEMPLATES, builtin_tokenizer_json
from orchestrator.models.source import ModelSource, quiet_transformers

if TYPE_CHECKING:
    from orchestrator.config.model import ModelConfig


def load_module(source: ModelSource, config: ModelConfig, auto_class: Any, seed: int, **kwargs: Any) -> torch.nn.Module:
    """The model, in float32, in training mode. New weights (all of a built-in model, a new head) come from `seed`."""
    quiet_transformers()
    # transformers draws new weights from torch's global generator
    torch.manual_seed(seed)
    if source.path is None:
        described = _builtin_config(config, **kwargs)
        module = auto_class.from_config(described)
    else:
        module = auto_class.from_pretrained(source.path, revision=source.revision, dtype=torch.float32, **kwargs)
    return module.train()


def _builtin_config(config: ModelConfig, **kwargs: Any) -> Any:
    from transformers import AutoConfig

    values = dict(BUILTIN[config.name] | config.overrides)
    # an argument of the model's class, not of its configuration
    kwargs.pop("add_pooling_layer", None)
    tokenizer = load_tokenizer(ModelSource("encoder", False, "", None, None), config)
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if values["model_type"] == "t5":
        special["decoder_start_token_id"] = tokenizer.pad_token_id
    return AutoConfig.for_model(**{**special, **kwargs, **values})


def load_tokenizer(source: ModelSource, config: ModelConfig) -> Any:
    """The model's tokenizer; for built-in models a byte-pair one made from the embedded stream's words."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    quiet_transformers()
    if source.path is not None:
        tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision)
        # decoders come without one; padding is masked, so any token will do
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(builtin_tokenizer_json())
    template = TEMPLATES[BUILTIN[config.name]["model_type"]]
    ids = [("<s>", backend.token_to_id("<s>")), ("</s>", backend.token_to_id("</s>"))]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
