"""LFPT5: one soft prompt that solves every task and writes samples of it, which stand in for old data (arXiv 2110.07298).

Shapes: n pairs of texts, D answer tokens, V vocabulary. A pair is (source, target) as token ids; "name" is a task's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.inclora import freeze_all_but
from methods.base import Context, Settings, State, TuningMethod, at_least_float32, generator
from methods.batch import Batch
from methods.prompts.soft_prompts import PromptedModel, example_shares, vocabulary_rows
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses

Pair = tuple[list[int], list[int]]


IGNORED = -100


_BUCKETS = 1 << 16


class LFPT5Settings(Settings):
    """tokens, lm, kd and top_k: the released script for classification (T5-large, learning rate 0.5 with Adafactor)."""

    tokens: int = Field(300, ge=1, description="vectors of the prompt")
    lm: float = Field(0.25, ge=0, description="weight of learning to write the task's samples")
    kd: float = Field(
        0.01, ge=0, le=1, description="weight of staying near the previous prompt's answers on old samples"
    )
    samples: int = Field(32, ge=0, description="samples written for every earlier task when a task begins")
    replay: float = Field(0.25, ge=0, le=1, description="share of new examples that an old task's sample comes with")
    top_k: int = Field(64, ge=1, description="tokens among which the next one is drawn when writing")
    max_text: int = Field(128, ge=1, description="tokens of a written text")
    max_answer: int = Field(16, ge=2, description="tokens of a written answer")
    known_answers: bool = Field(True, description="keep only samples whose answer occurred in the task's training data")


class _Prompt(nn.Module):
    """One prompt [P, d]."""

    def __init__(self, prompt: Tensor) -> None:
        super().__init__()
        self.prompt = nn.Parameter(prompt)


def sample_rows(
    next_scores: Callable[[Tensor | None], Tensor], length: int, top_k: int, end: int, rng: torch.Generator
) -> Tensor:
    """[n, length] tokens, each drawn among the `top_k` likeliest; after its second `end` a row goes on with `end`.

    `next_scores` gives the scores [n, V] after the token that was drawn last ([n, 1]; None at the start).
    """
    last = None
    rows: list[Tensor] = []
    ends = torch.zeros(())
    for _ in range(length):
        best = at_least_float32(next_scores(last)).topk(top_k, dim=-1)
        drawn = torch.multinomial(best.values.softmax(-1).cpu(), 1, generator=rng).to(best.indices.device)
        last = best.indices.gather(1, drawn)
        last = torch.where(ends.to(last.device).reshape(-1, 1) >= 2, torch.full_like(last, end), last)
        rows.append(last)
        ends = (torch.cat(rows, 1) == end).sum(1)
        if bool((ends >= 2).all()):
            break
    found = torch.cat(rows, 1)
    return F.pad(found, (0, length - found.shape[1]), value=end)


def read_row(row: Sequence[int], end: int) -> Pair | None:
    """(text, answer with its end) of "text end answer end"; None where the row is not so."""
    if list(row).count(end) < 2:
        return None
    cut = list(row).index(end)
    stop = list(row).index(end, cut + 1)
    text, answer = list(row[:cut]), list(row[cut + 1 : stop + 1])
    return (text, answer) if text and len(answer) > 1 else None


def token_means(logits: Tensor, labels: Tensor) -> Tensor:
    """[n]: each pair's mean cross-entropy over its answer's tokens."""
    losses = F.cross_entropy(at_least_float32(logits).transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(1) / (labels != IGNORED).sum(1)


def distances(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
    """[n]: each pair's mean over its answer's tokens of KL(teacher ‖ student)."""
    wanted = at_least_float32(teacher).log_softmax(-1)
    found = at_least_float32(student).log_softmax(-1)
    kl = (wanted.exp() * (wanted - found)).sum(-1)
    real = labels != IGNORED
    return (kl * real).sum(1) / real.sum(1)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


class LFPT5(Cost, TuningMethod):
    """Loss of a step: (1 - kd) [L(new) + L(old) + lm (LM(new) + LM(old))] + kd KL(old), where L is the answer's loss, LM that
    of writing "text, answer" after the task's name, and KL is to the answers of the prompt before this task.

    Old samples are written by the prompt itself when a task begins. We depart from the released code: the prompt stands
    before the text; a task's name is four seeded tokens; the text's end, not a new token, parts text and answer; a sample
    comes with a share of the new examples, chosen by their content, so that workers and resumed runs agree; samples are
    kept as they come, not balanced by class, without repetition penalty; KL is a mean over tokens, not a sum; a task without
    samples has no factor (1 - kd).
    """

    Settings = LFPT5Settings
    card = Card(
        summary="one soft prompt that also writes samples of earlier tasks for replay and distillation",
        paper="2110.07298",
        needs=("boundaries",),
        memory="which answers each task has; written samples while a task is trained",
        space={
            "lm": (0.1, 0.25, 0.5),
            "kd": (0.01, 0.05, 0.1),
            "tokens": (100, 300),
        },
        training_space={"lr": (3e-3, 1e-2, 3e-2, 0.1, 0.3)},
        requires_generation=True,
        no_output_units="it trains no linear layer, only a soft prompt",
        quick={"tokens": 10, "samples": 4, "max_text": 16, "max_answer": 4},
    )

    def __init__(self, settings: LFPT5Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.answers: dict[str, list[int]] = {}
        self.old: list[tuple[int, Pair]] = []
        self.teacher: Tensor | None = None
        self.teaching = False
        self.task = self.step = 0

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.prompted = PromptedModel(model, self._read)
        rng = generator(self.context.seed, "lfpt5")
        self.soft = _Prompt(vocabulary_rows(self.prompted.embeddings, self.settings.tokens, rng))
        model.add_module("soft_prompts", self.soft)
        config: Any = model.config
        self.encodes = bool(config.is_encoder_decoder)
        self.end = config.eos_token_id
        # some models have several, of which the first ends a text
        if isinstance(self.end, list):
            self.end = self.end[0]
        return model

    def _read(self, embeds: Tensor, mask: Tensor) -> Tensor:
        vectors: Tensor = self.soft.prompt
        if self.teaching and self.teacher is not None:
            vectors = self.teacher
        return vectors.expand(len(embeds), -1, -1)

    def added_tokens(self, task_id: int) -> int:
        return self.settings.tokens

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.task = task_id
        self.step = 0
        self.teacher = self.soft.prompt.detach().clone()
        self.old = []
        if task_id and self.settings.samples:
            self.old = self._write(model)

    @torch.no_grad()
    def _write(self, model: nn.Module) -> list[tuple[int, Pair]]:
        """Samples of the earlier tasks, by the present prompt; the same on all workers."""
        s: LFPT5Settings = self.settings
        tasks: list[int] = []
        for task in range(self.task):
            tasks += [task] * s.samples
        rng = generator(self.context.seed, "lfpt5", "write", self.task)
        model.eval()
        writer = self._writer(model, [self._name(task) for task in tasks])
        rows = sample_rows(writer, s.max_text + 1 + s.max_answer, s.top_k, self.end, rng)
        model.train()
        # drawn from scores that rounding may make different on each worker
        rows = self.context.from_first_worker(rows)
        samples = []
        for task, row in zip(tasks, rows.tolist(), strict=True):
            pair = read_row(row, self.end)
            if pair and self._is_known(task, pair[1]):
                samples.append((task, pair))
        return samples

    def _is_known(self, task: int, answer: list[int]) -> bool:
        return not self.settings.known_answers or _number(answer) % _BUCKETS in self.answers[str(task)]

    def _writer(self, model: nn.Module, names: list[list[int]]) -> Callable[[Tensor | None], Tensor]:
        """The scores of the next token after the tasks' names and what was written so far, by the model's cache."""
        ids = torch.tensor(names, device=self.soft.prompt.device)
        mask = torch.ones_like(ids)
        kept: dict[str, Any] = {"use_cache": True}
        if self.encodes:
            kept |= {
                "encoder_outputs": self.prompted.reader(input_ids=ids, attention_mask=mask),
                "attention_mask": mask,
            }

        def next_scores(last: Tensor | None) -> Tensor:
            if self.encodes:
                name = "decoder_input_ids"
                first = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)  # type: ignore[union-attr, arg-type]
            else:
                name = "input_ids"
                first = ids
            # what came before lies in the cache
            inputs = {name: first}
            if last is not None:
                inputs = {name: last}
            out = model(**inputs, **kept)
            kept["past_key_values"] = out.past_key_values
            scores: Tensor = out.logits[:, -1]
            return scores

        return next_scores

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        s: LFPT5Settings = self.settings
        old = 0.0
        if task_id > 0:
            old = s.replay
        forward = 0.0
        if s.kd:
            forward = old
        training = old
        if s.lm:
            training = old + (1 + old)
        return ExtraPasses(forward, training)

    def _name(self, task: int) -> list[int]:
        """Four tokens from the middle of the vocabulary, where no special ones are."""
        size = self.prompted.embeddings.num_embeddings
        return torch.randint(size // 4, 3 * size // 4, (4,), generator=generator("lfpt5", "name", task)).tolist()

    def pairs(self, batch: Batch) -> list[Pair]:
        """The batch's examples without padding."""
        found = []
        for ids, mask, labels in zip(batch.source.ids, batch.source.mask, batch.labels, strict=True):
            text = ids[mask.bool()].tolist()
            target = labels[labels != IGNORED].tolist()
            # a decoder reads the answer behind the text
            if not self.encodes:
                text = text[: len(text) - len(target)]
            found.append((text, target))
        return found

    def _written(self, task: int, pair: Pair) -> Pair:
        """What has to be written after the task's name."""
        text, answer = pair
        if text[-1] == self.end:
            text = text[:-1]
        return self._name(task), [*text[: self.settings.max_text], self.end, *answer]

    def _answer(self, model: nn.Module, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(logits [n, D, V], labels [n, D]) of the targets after their sources."""
        device = self.soft.prompt.device

        def padded(rows: list[list[int]], value: int) -> Tensor:
            width = max(len(row) for row in rows)
            return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=device)

        rows = [s if self.encodes else s + t for s, t in pairs]
        ids, mask = padded(rows, 0), padded([[1] * len(row) for row in rows], 0)
        if self.encodes:
            labels = padded([t for _, t in pairs], IGNORED)
            shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)  # type: ignore[operator]
            return model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted).logits, labels
        labels = padded([[IGNORED] * len(s) + t for s, t in pairs], IGNORED)
        return model(input_ids=ids, attention_mask=mask).logits[:, :-1], labels[:, 1:]

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        s: LFPT5Settings = self.settings
        shares = example_shares(batch)
        new = self.pairs(batch)
        if s.lm:
            written = token_means(*self._answer(model, [self._written(self.task, pair) for pair in new]))
            loss = loss + s.lm * (shares * written).sum()
        old = {}
        for i, pair in enumerate(new):
            companion = self._companion(pair)
            if companion:
                old[i] = companion
        if not old:
            return loss
        return self._with_old(model, loss, shares[list(old)], list(old.values()))

    def _companion(self, pair: Pair) -> tuple[int, Pair] | None:
        """The old sample that comes with a new example in this step, if one does."""
        number = _number(self.context.seed, self.task, self.step, pair)
        if not self.old or number % 1000 >= 1000 * self.settings.replay:
            return None
        return self.old[number // 1000 % len(self.old)]

    def _with_old(self, model: nn.Module, loss: Tensor, shares: Tensor, old: Sequence[tuple[int, Pair]]) -> Tensor:
        s: LFPT5Settings = self.settings
        read = [([*text, self.end] if self.encodes else text, answer) for _, (text, answer) in old]
        student, labels = self._answer(model, read)
        loss = loss + (shares * token_means(student, labels)).sum()
        if s.lm:
            written = token_means(*self._answer(model, [self._written(task, pair) for task, pair in old]))
            loss = loss + s.lm * (shares * written).sum()
        if not s.kd:
            return loss
        with torch.no_grad():
            self.teaching = True
            teacher, _ = self._answer(model, read)
            self.teaching = False
        return (1 - s.kd) * loss + s.kd * (shares * distances(teacher, student, labels)).sum()

    def after_optimizer_step(self, model: nn.Module) -> None:
        self.step += 1

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Note which answers occurred on any worker, by their number among 65536."""
        seen = torch.zeros(_BUCKETS, device=self.soft.prompt.device)
        for batch in batches:
            seen[[_number(answer) % _BUCKETS for _, answer in self.pairs(batch)]] = 1
        self.answers[str(task_id)] = self.context.mean_over_workers(seen).nonzero().flatten().tolist()
        self.old = []
        self.teacher = None

    def state_dict(self) -> State:
        return {"answers": dict(self.answers)}

    def load_state_dict(self, state: State) -> None:
        self.answers = {task: list(numbers) for task, numbers in state["answers"].items()}
