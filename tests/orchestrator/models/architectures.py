"""Small models of many architectures, with random weights, saved in folders as users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.loading import load_tokenizer
from orchestrator.models.source import find_model

_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
_LLAMA: dict[str, Any] = {**_BERT, "num_key_value_heads": 2, "head_dim": 8}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
_T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}

# architecture -> (model type, sizes); the class that is saved is the one of that name
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "GPTNeoXForCausalLM": ("gpt_neox", _BERT),
    "OPTForCausalLM": ("opt", {**_BERT, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Qwen2ForCausalLM": ("qwen2", _LLAMA),
    "Qwen3ForCausalLM": ("qwen3", _LLAMA),
    "Qwen3MoeForCausalLM": (
        "qwen3_moe",
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "MistralForCausalLM": ("mistral", _LLAMA),
    "GemmaForCausalLM": ("gemma", _LLAMA),
    "PhiForCausalLM": ("phi", _BERT),
    "MambaForCausalLM": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "DistilBertModel": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "ModernBertModel": ("modernbert", _BERT),
    "AlbertModel": ("albert", {**_BERT, "embedding_size": 16}),
    "ElectraModel": ("electra", {**_BERT, "embedding_size": 16}),
    "DebertaV2Model": ("deberta-v2", _BERT),
    "RobertaModel": ("roberta", _BERT),
    "BartForConditionalGeneration": ("bart", _BART),
    "MT5ForConditionalGeneration": ("mt5", _T5),
    "T5ForConditionalGeneration": ("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}


def save_model(folder: Path, architecture: str, **changes: Any) -> str:
    """Save a small model of an architecture with the built-in tokenizer; gives the folder's name.

    Of an architecture that is not listed, `model_type` and all sizes are among `changes`.
    """
    import transformers

    model_type, sizes = ARCHITECTURES.get(architecture, ("", {}))
    model_type = changes.pop("model_type", model_type)
    like = "tiny-t5"
    if "CausalLM" in architecture or "GPT2" in architecture:
        like = "tiny-llama"
    elif architecture.endswith("Model"):
        like = "tiny-bert"
    described = ModelConfig(name=like)
    tokenizer = load_tokenizer(find_model(described), described)
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**special, **sizes, **changes})
    model = getattr(transformers, architecture)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
