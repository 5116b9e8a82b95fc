"""Loading a model and its tokenizer with transformers, or making those that are built in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.models.builtin import BUILTIN, TEMPLATES, builtin_tokenizer_json
from orchestrator.models.source import ModelSource, quiet_transformers
from orchestrator.models.weights.saved_parts import SavedParts, with_placeholders

if TYPE_CHECKING:
    from orchestrator.config.model import ModelConfig


def load_module(source: ModelSource, config: ModelConfig, auto_class: Any, seed: int, **kwargs: Any) -> torch.nn.Module:
    """The model, in float32, in training mode. New weights (all of a built-in model, a new head) come from `seed`."""
    quiet_transformers()
    # transformers draws new weights from torch's global generator
    torch.manual_seed(seed)
    try:
        return _load(source, config, auto_class, kwargs).train()
    except (ValueError, ImportError) as error:
        # what the architecture, the installation or the device does not have, each with a message of its own
        if config.attention == "auto" or "attention" not in str(error).lower():
            raise
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model.attention: {config.attention!r} does not go with {config.name!r} here: {reason}"
        ) from error


def _load(source: ModelSource, config: ModelConfig, auto_class: Any, kwargs: dict[str, Any]) -> torch.nn.Module:
    if config.attention != "auto":
        kwargs = {**kwargs, "attn_implementation": config.attention}
    if source.path is None:
        class_arguments = _taken(kwargs, "attn_implementation")
        module = _from_config(source, auto_class, _builtin_config(config, **kwargs), class_arguments)
    elif not source.has_values:
        described, class_arguments = _hub_config(source, kwargs)
        module = _from_config(source, auto_class, described, class_arguments)
    else:
        module = None
        if source.in_parts:
            module = _to_be_filled(source, auto_class, kwargs)
        if module is None:
            module = _pretrained(source, config, auto_class, kwargs)
    return module


def _taken(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the arguments, taken out of them."""
    found = {}
    for name in names:
        if name in kwargs:
            found[name] = kwargs.pop(name)
    return found


def _to_be_filled(source: ModelSource, auto_class: Any, kwargs: dict[str, Any]) -> torch.nn.Module | None:
    """The model with placeholders; None where its files cannot be read in parts, as they lack a head or have other names."""
    described, class_arguments = _hub_config(source, kwargs)
    module: Any = with_placeholders(auto_class, described, class_arguments)
    module.saved_parts = SavedParts.find(source, module)
    if module.saved_parts is None:
        return None
    if module.can_generate():
        from transformers import GenerationConfig

        path: Any = source.path
        # without such a file, the model's own configuration says it
        with contextlib.suppress(OSError):
            module.generation_config = GenerationConfig.from_pretrained(path, revision=source.revision or "main")
    built: torch.nn.Module = module
    return built


def _from_config(source: ModelSource, auto_class: Any, described: Any, class_arguments: dict[str, Any]) -> Any:
    """A model with new weights, or with shapes alone. Raises ValueError where the architecture has no such model."""
    device: Any = contextlib.nullcontext()
    if not source.has_values:
        device = torch.device("meta")
    with device:
        try:
            return auto_class.from_config(described, **class_arguments)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            what = auto_class.__name__.removeprefix("AutoModelFor")
            raise ValueError(
                f"model {source.path!r}: transformers has no {what} for {described.model_type!r}"
            ) from None


def _hub_config(source: ModelSource, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration, and of the arguments those that are the model class's."""
    from transformers import AutoConfig

    of_config = dict(kwargs)
    class_arguments = _taken(of_config, "add_pooling_layer", "attn_implementation")
    # only a model that has a path is read from the hub's files
    assert source.path is not None
    return AutoConfig.from_pretrained(source.path, revision=source.revision, **of_config), class_arguments


def _pretrained(source: ModelSource, config: ModelConfig, auto_class: Any, kwargs: dict[str, Any]) -> Any:
    """The model with its saved weights. Raises ValueError where they are another model's.

    A classifier saved for another number of labels is taken without its last layer, which is drawn anew in any case.
    """
    num_labels = kwargs.get("num_labels")
    module, loaded = auto_class.from_pretrained(
        source.path,
        revision=source.revision,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **kwargs,
    )
    for name, saved, wanted in loaded["mismatched_keys"]:
        if num_labels is None or wanted[0] != num_labels:
            raise ValueError(
                f"model {config.name!r}: weight {name!r} is {list(saved)} in its file and {list(wanted)} by its config.json"
            )
    # a head over the vocabulary, or a layer of the backbone, must not come from a random draw
    backbone = f"{module.base_model_prefix}."
    for name in sorted(loaded["missing_keys"]):
        if num_labels is None or name.startswith(backbone):
            raise ValueError(f"model {config.name!r}: weight {name!r} is not in its files")
    return module


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
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision)
        # the library below raises a bare Exception for a file that is torn
        except Exception as error:
            lines = [*str(error).strip().splitlines(), type(error).__name__]
            raise ValueError(f"model {config.name!r}: its tokenizer cannot be read: {lines[0]}") from error
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
        # no text is read as it, as letters without a token of their own fall to bytes: so it is free to hide a token
        mask_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
