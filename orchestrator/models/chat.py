"""What a tokenizer's chat template writes around a question and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streams import Prompt

# no template writes or changes these
QUESTION = "question-stands-here"
ANSWER = "answer-stands-here"


@dataclass(frozen=True)
class ChatTemplate:
    """One turn of a chat, as texts that hold the template's own special tokens.

    `before` and `after` stand around the question, `lead` between them and the answer, which ends with `end`.
    """

    before: str
    after: str
    lead: str
    end: str

    @staticmethod
    def of(tokenizer: Any, model: str) -> ChatTemplate:
        """A tokenizer's template. Raises ValueError where it has none, or none in which a turn is one text in another."""
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"model.input: 'chat', but the tokenizer of {model!r} has no chat template; allowed: prompt, text"
            )
        turn = [{"role": "user", "content": QUESTION}]
        asked = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        turn.append({"role": "assistant", "content": ANSWER})
        answered = tokenizer.apply_chat_template(turn, tokenize=False)
        before, question, after = asked.partition(QUESTION)
        lead, answer, end = answered.removeprefix(asked).partition(ANSWER)
        if not question or not answer or not answered.startswith(asked):
            raise ValueError(
                f"model.input: 'chat', but with the template of {model!r} an answer does not follow its question"
            )
        return ChatTemplate(before, after, lead, end)

    def ask(self, prompt: Prompt) -> Prompt:
        """The prompt as the user's turn."""
        return Prompt(self.before + prompt.prefix, prompt.text, prompt.suffix + self.after)

    def end_tokens(self, tokenizer: Any) -> list[int]:
        """The ids behind an answer: up to the first token that ends a turn, beyond which nothing is to be learnt.

        Raises ValueError where the template ends a turn with no special token.
        """
        ids: list[int] = tokenizer(self.end, add_special_tokens=False).input_ids
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        for index, token in enumerate(ids):
            if token in special:
                return ids[: index + 1]
        raise ValueError("model.input: 'chat', but the chat template ends an answer with no special token")
