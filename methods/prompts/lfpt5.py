"""LFPT5: one soft prompt that solves every task and writes samples of it, which stand in for old data (arXiv 2110.07298).

Shapes: B examples, P vectors, d the width of the embeddings, V vocabulary.
A pair is (source, target) as token ids; a "name" is a task's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, State, TuningMethod, generator
from methods.batch import IGNORED, Batch
from methods.prompts.pairs import Pair, answer_logits, distances, stable_number, token_means
from methods.prompts.soft_prompts import PromptedModel, example_loss_weights, random_token_embeddings
from methods.prompts.writing import draw_samples, read_sample
from methods.seam.card import PROMPT_RATES, Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.reader import cache_name
from methods.shared.tensors import freeze_all_but

# answers are remembered by their number among so many: a state of plain numbers, whatever the texts
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
        training_space={"lr": PROMPT_RATES},
        default_lr=0.3,
        requires_generation=True,
        no_output_units="it trains no linear layer, only a soft prompt",
        no_own_weights="it trains a soft prompt alone",
        quick={"tokens": 10, "samples": 4, "max_text": 16, "max_answer": 4},
        not_sharded="it reads token embeddings between passes",
        no_corpora="it writes examples with their labels, and the documents of a corpus have none",
    )

    def __init__(self, settings: LFPT5Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.answers: dict[str, list[int]] = {}
        self.old: list[tuple[int, Pair]] = []
        self.teacher: Tensor | None = None
        self.teaching = False
        self.task = 0
        self.step = 0

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.prompted = PromptedModel(model, self.vectors)
        rng = generator(self.context.seed, "lfpt5")
        self.soft = _Prompt(random_token_embeddings(self.prompted.embeddings, self.settings.tokens, rng))
        model.add_module("soft_prompts", self.soft)
        config: Any = model.config
        self.encodes = bool(config.is_encoder_decoder)
        self.end = config.eos_token_id
        # some models have several, of which the first ends a text
        if isinstance(self.end, list):
            self.end = self.end[0]
        return model

    def vectors(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """[B, P, d]: the prompt, or the one before this task while it teaches, the same for every text."""
        vectors: Tensor = self.soft.prompt
        if self.teaching and self.teacher is not None:
            vectors = self.teacher
        return vectors.expand(len(embeds), -1, -1)

    def without_decay(self) -> Sequence[nn.Parameter]:
        return list(self.soft.parameters())

    def added_tokens(self, task_id: int) -> int:
        return self.settings.tokens

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.task = task_id
        self.step = 0
        # before training moves it; a resumed run begins the task again, so neither it nor the samples go into the state
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
        names = list(map(self.task_name, tasks))
        rng = generator(self.context.seed, "lfpt5", "write", self.task)
        # the text's end needs a token of its own between the two
        length = s.max_text + 1 + s.max_answer
        model.eval()
        drawn = draw_samples(self.writer(model, names), length, s.top_k, self.end, rng)
        model.train()
        # drawn from scores that rounding may make different on each worker
        drawn = self.context.from_first_worker(drawn)
        samples = []
        for task, tokens in zip(tasks, drawn.tolist(), strict=True):
            pair = read_sample(tokens, self.end)
            if pair and self._is_known(task, pair[1]):
                samples.append((task, pair))
        return samples

    def _is_known(self, task: int, answer: list[int]) -> bool:
        if not self.settings.known_answers:
            return True
        return stable_number(answer) % _BUCKETS in self.answers[str(task)]

    def writer(self, model: nn.Module, names: list[list[int]]) -> Callable[[Tensor | None], Tensor]:
        """The scores of the next token after the tasks' names and what was written so far, by the model's cache."""
        ids = torch.tensor(names, device=self.soft.prompt.device)
        mask = torch.ones_like(ids)
        fixed: dict[str, Any] = {"use_cache": True}
        cache = cache_name(model)
        if self.encodes:
            # once: the names do not change while the decoder writes
            fixed["encoder_outputs"] = self.prompted.reader(input_ids=ids, attention_mask=mask)
            fixed["attention_mask"] = mask
            input_name = "decoder_input_ids"
            first = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)  # type: ignore[union-attr, arg-type]
        else:
            input_name = "input_ids"
            first = ids

        def next_scores(last: Tensor | None) -> Tensor:
            tokens = first
            # what came before it lies in the cache
            if last is not None:
                tokens = last
            out = model(**{input_name: tokens}, **fixed)
            fixed[cache] = out[cache]
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

    def task_name(self, task: int) -> list[int]:
        """Four tokens from the middle of the vocabulary, where no special ones are."""
        size = self.prompted.embeddings.num_embeddings
        # without the sequence's seed: a task is called the same in every run
        return torch.randint(size // 4, 3 * size // 4, (4,), generator=generator("lfpt5", "name", task)).tolist()

    def pairs(self, batch: Batch) -> list[Pair]:
        """The batch's examples without padding."""
        pairs = []
        for ids, mask, labels in zip(batch.source.ids, batch.source.mask, batch.labels, strict=True):
            text = ids[mask.bool()].tolist()
            target = labels[labels != IGNORED].tolist()
            # a decoder reads the answer behind the text
            if not self.encodes:
                text = text[: len(text) - len(target)]
            pairs.append((text, target))
        return pairs

    def _written(self, task: int, pair: Pair) -> Pair:
        """The task's name, and what has to be written after it."""
        text, answer = pair
        # an encoder's text has an end already; cutting the text must not cut that off
        if text[-1] == self.end:
            text = text[:-1]
        return self.task_name(task), [*text[: self.settings.max_text], self.end, *answer]

    def _answer(self, model: nn.Module, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        return answer_logits(model, pairs, self.encodes, self.soft.prompt.device)

    def _writing_loss(self, model: nn.Module, samples: Iterable[tuple[int, Pair]], weights: Tensor) -> Tensor:
        """The weighted sum of the losses of writing (task, pair) after the task's name."""
        written = []
        for task, pair in samples:
            written.append(self._written(task, pair))
        logits, labels = self._answer(model, written)
        return (weights * token_means(logits, labels)).sum()

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        s: LFPT5Settings = self.settings
        weights = example_loss_weights(batch)
        new = self.pairs(batch)
        if s.lm:
            loss = loss + s.lm * self._writing_loss(model, [(self.task, pair) for pair in new], weights)
        example_indices = []
        companions = []
        for example_index, pair in enumerate(new):
            companion = self.companion(pair)
            if companion:
                example_indices.append(example_index)
                companions.append(companion)
        if not companions:
            return loss
        return self._with_old(model, loss, weights[example_indices], companions)

    def companion(self, pair: Pair) -> tuple[int, Pair] | None:
        """The old sample that comes with a new example in this step, if one does."""
        if not self.old:
            return None
        # of one number the last three digits decide whether a sample comes, the others which one
        number = stable_number(self.context.seed, self.task, self.step, pair)
        if number % 1000 >= 1000 * self.settings.replay:
            return None
        return self.old[number // 1000 % len(self.old)]

    def _with_old(self, model: nn.Module, loss: Tensor, weights: Tensor, old: Sequence[tuple[int, Pair]]) -> Tensor:
        """The loss with old samples, each of which weighs as much as the example that it comes with."""
        s: LFPT5Settings = self.settings
        pairs = []
        for _, (text, answer) in old:
            # an encoder's text comes with an end, which reading the sample has cut off
            if self.encodes:
                text = [*text, self.end]
            pairs.append((text, answer))
        student, labels = self._answer(model, pairs)
        loss = loss + (weights * token_means(student, labels)).sum()
        if s.lm:
            loss = loss + s.lm * self._writing_loss(model, old, weights)
        if not s.kd:
            return loss
        with torch.no_grad():
            self.teaching = True
            teacher, _ = self._answer(model, pairs)
            self.teaching = False
        # (1 - kd) stands before all that was added up so far, the new examples' loss too
        distance = (weights * distances(teacher, student, labels)).sum()
        return (1 - s.kd) * loss + s.kd * distance

    def after_optimizer_step(self, model: nn.Module) -> None:
        self.step += 1

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Note which answers occurred on any worker, by their number among 65536."""
        seen = torch.zeros(_BUCKETS, device=self.soft.prompt.device)
        for batch in batches:
            for _, answer in self.pairs(batch):
                seen[stable_number(answer) % _BUCKETS] = 1
        # the mean is not zero where any worker's is not
        self.answers[str(task_id)] = self.context.mean_over_workers(seen).nonzero().flatten().tolist()
        self.old = []
        self.teacher = None

    def state_dict(self) -> State:
        return {"answers": dict(self.answers)}

    def load_state_dict(self, state: State) -> None:
        self.answers = {}
        for task, numbers in state["answers"].items():
            self.answers[task] = list(numbers)
