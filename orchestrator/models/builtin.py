"""The built-in models: small ones with random weights, which need no download, and the tokenizer that they share."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Literal

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

BUILTIN_KIND: dict[str, Kind] = {"t5": "encoder-decoder", "bert": "encoder", "roberta": "encoder", "llama": "decoder"}

# what the tokenizer puts around a text, as the models of that kind do
TEMPLATES = {"t5": "$A </s>", "llama": "<s> $A", "bert": "<s> $A </s>", "roberta": "<s> $A </s>"}


@cache
def builtin_tokenizer_json() -> str:
    """Byte-pair encoding in which each word of the embedded stream is one token and any other text falls to pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    from streams import vocabulary

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = list(map(chr, range(33, 127)))
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    for byte in range(256):
        special.append(f"<0x{byte:02X}>")
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=0, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary(), trainer)
    described = json.loads(tokenizer.to_str())
    # bytes are text, so decoding must not skip them as it skips special tokens
    skipped_when_decoding = []
    for token in described["added_tokens"]:
        if not token["content"].startswith("<0x"):
            skipped_when_decoding.append(token)
    described["added_tokens"] = skipped_when_decoding
    return json.dumps(described)
