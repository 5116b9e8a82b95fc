"""Writing samples with a language model: drawing tokens one after another, and reading text and answer back out of them.

Shapes: n samples, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import at_least_float32
from methods.prompts.pairs import Pair


def draw_samples(
    next_scores: Callable[[Tensor | None], Tensor], length: int, top_k: int, end: int, rng: torch.Generator
) -> Tensor:
    """[n, length] tokens, each drawn among the `top_k` likeliest; after its second `end` a sample goes on with `end`.

    `next_scores` gives the scores [n, V] after the token that was drawn last ([n, 1]; None at the start).
    """
    last = None
    drawn_tokens: list[Tensor] = []
    has_ended = None
    for _ in range(length):
        likeliest = at_least_float32(next_scores(last)).topk(top_k, dim=-1)
        # on the CPU, where the generator is; one that has ended draws too, so that the others' draws do not hang on it
        chosen = torch.multinomial(likeliest.values.softmax(-1).cpu(), 1, generator=rng)
        last = likeliest.indices.gather(1, chosen.to(likeliest.indices.device))
        if has_ended is not None:
            last = torch.where(has_ended.unsqueeze(1), torch.full_like(last, end), last)
        drawn_tokens.append(last)
        # the first `end` parts text and answer, the second one closes
        has_ended = (torch.cat(drawn_tokens, 1) == end).sum(1) >= 2
        if bool(has_ended.all()):
            break
    samples = torch.cat(drawn_tokens, 1)
    return F.pad(samples, (0, length - samples.shape[1]), value=end)


def read_sample(tokens: Sequence[int], end: int) -> Pair | None:
    """(text, answer with its end) of "text end answer end"; None where the tokens are not so."""
    tokens = list(tokens)
    if tokens.count(end) < 2:
        return None
    text_end = tokens.index(end)
    answer_end = tokens.index(end, text_end + 1)
    text = tokens[:text_end]
    answer = tokens[text_end + 1 : answer_end + 1]
    # an answer always has its end, so one that says something has two tokens
    if not text or len(answer) < 2:
        return None
    return text, answer
