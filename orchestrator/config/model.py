"""What a user may ask for of the model: which one, how it reads and how it answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from orchestrator.config.section import Section

# Ways in which a model that writes chooses among a task's labels. They change answers and nothing that is trained.
CHOOSING = ("rank", "constrained")


class ModelConfig(Section):
    """The model, and how text goes in and answers come out."""

    name: str = Field("tiny-t5", description="a built-in name, a local folder, or a hub id")
    revision: str | None = Field(None, description="the hub commit; by default the newest, which is then recorded")
    overrides: dict[str, Any] = Field(default_factory=dict, description="changes to a built-in model's configuration")
    scoring: Literal["auto", "generate", "rank", "constrained", "head", "similarity", "masked"] = Field(
        "auto",
        description="auto: generate for (encoder-)decoders, similarity for sentence encoders, masked for other encoders on "
        "corpora, else head. rank: that of the task's labels which is likeliest as a whole; constrained: generation of which "
        "only these can come",
    )
    input: Literal["auto", "prompt", "text", "chat"] = Field(
        "auto",
        description="auto: the prompt if generating, else the text; chat: the prompt in the model's chat template",
    )
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, float32 elsewhere")
    base: Literal["float32", "bf16", "int8", "nf4"] = Field(
        "float32",
        description="type of the weights that the tuning method freezes; bf16 takes half the memory; int8 and nf4 (8 and 4 "
        "bits, as load_in_8bit and load_in_4bit of transformers) are of the linear layers in the blocks, by bitsandbytes",
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="how attention is computed; auto: transformers' choice for the architecture"
    )
    max_source: int = Field(512, ge=8, le=10**8, description="tokens of the input at most; longer texts are shortened")
    max_target: int = Field(50, ge=2, le=10**8, description="tokens of the answer at most")
