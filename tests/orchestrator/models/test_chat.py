"""Chat templates: the tokens are those that transformers' own call gives for the whole turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.chat import ChatTemplate
from orchestrator.models.decoder import Decoder
from orchestrator.models.families import load_family
from orchestrator.models.source import find_model
from orchestrator.planning.door import check_model
from streams import Example, Task
from tests.conftest import SMALL

# as the models of these kinds have them: an answer ends with a token of the turn, or with the tokenizer's end
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama-2": LLAMA_2}
EXAMPLES = [Example("a film about the sea", "it is good"), Example("the long film", "bad")]


def byte_tokenizer() -> Any:
    """A tokenizer of bytes, as Qwen's and Llama 3's are: a line's end is a token, and no blank is added or lost."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["a film about the sea user assistant"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")


def folder_of(tmp_path: Path, template: str | None) -> str:
    """A small Llama in a folder, whose tokenizer has the template and ChatML's two tokens."""
    config = ModelConfig(name="tiny-llama", overrides=SMALL["tiny-llama"])
    family = load_family(find_model(config), config, ["a"], seed=0)
    if template == CHATML:
        family.tokenizer = byte_tokenizer()
    family.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    family.tokenizer.chat_template = template
    model: Any = family.module
    model.resize_token_embeddings(len(family.tokenizer))
    for part in (model, family.tokenizer):
        part.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def family_of(folder: str, **settings: Any) -> Decoder:
    config = ModelConfig(name=folder, input="chat", max_target=20, **settings)
    family = load_family(find_model(config), config, ["bad", "it is good"], seed=0)
    assert isinstance(family, Decoder)
    return family


def task_of(*labels: str) -> Task:
    return Task("t", "", "Is it good? ", labels, "", lambda split: EXAMPLES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_question_and_answer_are_the_tokens_of_the_turn(tmp_path: Path, name: str) -> None:
    family = family_of(folder_of(tmp_path, TEMPLATES[name]))
    task = task_of()
    for feature, example in zip(family.features(task, EXAMPLES), EXAMPLES, strict=True):
        turn = [
            {"role": "user", "content": str(task.prompt(example.text))},
            {"role": "assistant", "content": example.label},
        ]
        asked = family.tokenizer.apply_chat_template(turn[:1], add_generation_prompt=True)["input_ids"]
        whole = family.tokenizer.apply_chat_template(turn)["input_ids"]
        read = feature["source"] + feature["target"]
        assert feature["source"] == asked
        assert read == whole[: len(read)]
        # what is left out behind the end of the turn is a line's end at most
        assert family.tokenizer.decode(whole[len(read) :]).strip() == ""
        batch = family.collate([feature])
        assert batch.answer_tokens().tolist() == feature["target"]


def test_generation_ends_where_the_turn_does(tmp_path: Path) -> None:
    family = family_of(folder_of(tmp_path, CHATML))
    end = family.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert family.last_tokens() == [end]
    assert family.features(task_of(), EXAMPLES)[0]["target"][-1] == end
    head: Any = family.module.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        # all tokens but the end have a score of nothing, whatever was read
        head.weight[:] = 0
        bias = torch.zeros(len(head.weight))
        bias[end] = 1
    head.bias = torch.nn.Parameter(bias)
    features = family.features(task_of(), EXAMPLES)
    assert family.answers(task_of(), features, torch.device("cpu")) == [("", None), ("", None)]
    longest = max(len(family.tokenizer(label, add_special_tokens=False).input_ids) for label in ("bad", "it is good"))
    # the end, and one token more, by which an answer that is too long differs
    assert family.max_new_tokens(task_of("bad", "it is good")) == longest + 2


def test_a_long_text_is_shortened_and_the_turn_stays_whole(tmp_path: Path) -> None:
    family = family_of(folder_of(tmp_path, CHATML), max_source=90)
    long = Example("film " * 300, "bad")
    (feature,) = family.features(task_of(), [long])
    assert len(feature["source"]) <= 90
    text = family.tokenizer.decode(feature["source"])
    assert text.startswith("<|im_start|>user\n") and text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert 2 < text.count("film") < 300


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template; allowed: prompt, text"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "ends an answer with no special token"),
        ("{% for m in messages %}{{ m.role }}</s>{% endfor %}", "an answer does not follow its question"),
        ("{{ messages|length }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "does not follow"),
    ],
)
def test_a_model_without_a_usable_template_is_refused_at_the_door(
    tmp_path: Path, template: str | None, message: str
) -> None:
    config = ModelConfig(name=folder_of(tmp_path, template), input="chat")
    with pytest.raises(ValueError, match=message):
        check_model(find_model(config), config)


def test_it_goes_with_decoders() -> None:
    config = ModelConfig(name="tiny-t5", input="chat")
    with pytest.raises(ValueError, match=r"model\.input: 'chat' goes with decoders; 'tiny-t5' is none"):
        load_family(find_model(config), config, ["a"], 0)


def test_a_template_may_lead_an_answer_in() -> None:
    class Tokenizer:
        chat_template = "has one"

        def apply_chat_template(self, turn: Any, tokenize: bool, add_generation_prompt: bool = False) -> str:
            return "".join(f"({m['role'][0]} {m['content']} )" for m in turn)

    assert ChatTemplate.of(Tokenizer(), "m") == ChatTemplate("(u ", " )", "(a ", " )")
