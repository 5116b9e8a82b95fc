"""LFPT5: its writing and its loss against plain forward passes; which samples stay, and come back after a stop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods import method_spec, trainable
from methods.prompts.lfpt5 import LFPT5
from methods.prompts.pairs import answer_logits
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import CheckpointSaved
from orchestrator.store.records.event import Event
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task

GENERATING = ("tiny-t5", "tiny-llama")
SMALL = {"name": "lfpt5", "tokens": 4, "samples": 6, "max_text": 10, "max_answer": 4, "top_k": 3, "replay": 0.5}


def tuning_of(learner: Learner) -> LFPT5:
    assert learner.family
    tuning = learner.stack.tuning
    assert isinstance(tuning, LFPT5)
    return tuning


@pytest.mark.parametrize("model", GENERATING)
@torch.no_grad()
def test_writing_goes_by_the_scores_of_whole_passes(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=[{"tuning": {**SMALL, "samples": 1}}])
    tuning, module = tuning_of(learner), learner.family.module.eval()
    name = tuning.task_name(0)
    assert name == tuning.task_name(0) != tuning.task_name(1)
    writer = tuning.writer(module, [name])
    written: list[int] = []
    scores = writer(None)
    for token in (300, 301, 302):
        logits, _ = answer_logits(
            module, [(name, [*written, 7])], tuning.encodes, torch.device("cpu")
        )  # the scores before a token do not depend on it
        torch.testing.assert_close(scores, logits[:, -1], atol=1e-5, rtol=1e-4)
        written.append(token)
        scores = writer(torch.tensor([[token]]))


def bare(module: nn.Module) -> nn.Module:
    plain = copy.deepcopy(module)
    for part in plain.modules():
        part._forward_pre_hooks.clear()
        part._forward_hooks.clear()
    return plain


def reference_logits(plain: nn.Module, encodes: bool, prompt: Tensor, source: list[int], target: list[int]) -> Tensor:
    """[D, V]: the scores of one target's tokens, without padding or masks."""
    table = plain.get_input_embeddings()
    if encodes:
        start = torch.tensor([[plain.config.decoder_start_token_id, *target[:-1]]])
        embeds = torch.cat([prompt, table(torch.tensor(source))])[None]
        return plain(inputs_embeds=embeds, decoder_input_ids=start).logits[0]
    embeds = torch.cat([prompt, table(torch.tensor(source + target))])[None]
    return plain(inputs_embeds=embeds).logits[0, -len(target) - 1 : -1]


@pytest.mark.parametrize("model", GENERATING)
def test_the_loss_of_a_batch_is_the_formula(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=[{"tuning": {**SMALL, "kd": 0.2, "lm": 0.3, "replay": 1.0}}])
    tuning, module, family = tuning_of(learner), learner.family.module.double().train(), learner.family
    plain, encodes, end = bare(module), model == "tiny-t5", family.tokenizer.eos_token_id
    torch.set_default_dtype(torch.float64)
    try:
        features = learner.features(2)[:3]
        tuning.task, tuning.step = 2, 4
        tuning.teacher = tuning.soft.prompt.detach() + 0.1 * torch.randn(
            4, 32, generator=torch.Generator().manual_seed(1)
        )
        old = [(0, ([40, 41], [50, end])), (1, ([42], [51, 52, end])), (0, ([43, 44, 45], [53, end]))]
        tuning.old = old
        batch = family.collate(features).replace(loss_weight=0.6)
        summed, logits = family.forward(module, batch)
        units = [len(f["target"]) for f in features]
        found = tuning.after_forward(module, batch, logits, 0.6 * summed / sum(units))

        def ce(prompt: Tensor, source: list[int], target: list[int]) -> Tensor:
            scores = reference_logits(plain, encodes, prompt, source, target).log_softmax(-1)
            return -torch.stack([scores[i, token] for i, token in enumerate(target)]).mean()

        p, total, kl = tuning.soft.prompt.detach().clone().requires_grad_(), 0.0, 0.0
        for feature, n in zip(features, units, strict=True):
            share, text = 0.6 * n / sum(units), feature["source"]
            cut = [t for t in text if t != end][:10]
            total = total + share * ce(p, text, feature["target"])
            total = total + share * 0.3 * ce(p, tuning.task_name(2), [*cut, end, *feature["target"]])
            task, (x, y) = tuning.companion((text, feature["target"]))  # type: ignore[misc]
            asked = [*x, end] if encodes else x
            total = total + share * ce(p, asked, y)
            total = total + share * 0.3 * ce(p, tuning.task_name(task), [*x, end, *y])
            wanted = reference_logits(plain, encodes, tuning.teacher, asked, y).softmax(-1).detach()
            own = reference_logits(plain, encodes, p, asked, y).softmax(-1)
            kl = kl + share * (wanted * (wanted / own).log()).sum(-1).mean()
        expected = 0.8 * total + 0.2 * kl
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found, [tuning.soft.prompt])
        (wanted_gradient,) = torch.autograd.grad(expected, [p])
        torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-8)  # Llama norms in float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_companion_depends_on_the_example_and_the_step_alone(learner_of: Callable[..., Learner]) -> None:
    tuning = tuning_of(learner_of(methods=[{"tuning": {**SMALL, "replay": 0.5}}]))
    tuning.old = [(0, ([i], [i, 1])) for i in range(7)]
    pairs = [([i, i + 1], [2, 1]) for i in range(400)]
    first = [tuning.companion(p) for p in pairs]
    assert first == [tuning.companion(p) for p in pairs]
    assert sum(c is not None for c in first) == pytest.approx(200, abs=40)
    assert {c[1][0][0] for c in first if c} == set(range(7))
    tuning.step += 1
    assert first != [tuning.companion(p) for p in pairs]


def test_only_samples_with_known_answers_stay(
    learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(methods=[{"tuning": SMALL}])
    tuning = tuning_of(learner)
    train_task(learner, 0, lambda event: None)
    known = learner.features(0)[0]["target"]
    end = learner.family.tokenizer.eos_token_id
    samples = torch.full((6, 16), end)
    samples[:, :3] = torch.tensor([90, 91, end])
    samples[:3, 3 : 2 + len(known)] = torch.tensor(known[:-1])
    samples[3:, 3] = 99
    monkeypatch.setattr("methods.prompts.lfpt5.draw_samples", lambda *a: samples)
    tuning.before_task(learner.family.module, 1, [])
    assert tuning.old == [(0, ([90, 91], known))] * 3


@pytest.mark.parametrize("model", GENERATING)
def test_with_old_samples_resuming_equals_not_stopping(
    model: str, sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(scores: object, length: int, top_k: int, end: int, rng: torch.Generator) -> Tensor:
        samples = torch.randint(300, 330, (6, length), generator=rng)
        samples[:, 3] = samples[:, 5:] = end
        return samples.repeat(4, 1)

    monkeypatch.setattr("methods.prompts.lfpt5.draw_samples", lambda *a: write(*a)[: 6 * a[0].tasks])
    monkeypatch.setattr(
        LFPT5, "writer", lambda self, model, names: type("Names", (), {"tasks": len(names) // self.settings.samples})()
    )
    few = {"stream": {"max_train": 16}, "training": {"micro_batch": 4}}
    settings = {**SMALL, "known_answers": False}
    runs = [sequence_of(out, model=model, methods=[{"tuning": settings}], **few) for out in ("whole", "stopped")]
    plain = sequence_of("plain", model=model, methods=[{"tuning": {**settings, "samples": 0}}], **few)
    run_sequence(runs[0], evaluate=False)
    run_sequence(plain, evaluate=False)

    class Stop(BaseException):
        """As a signal would come."""

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.task_id == 1:
            raise Stop

    with pytest.raises(Stop):
        run_sequence(runs[1], stop, evaluate=False)
    run_sequence(runs[1], evaluate=False)
    states = [Store(Path(run.out)).load(run.keys[3]).weights for run in (*runs, plain)]
    assert list(states[0]) == ["soft_prompts.prompt"]
    assert torch.equal(states[0]["soft_prompts.prompt"], states[1]["soft_prompts.prompt"])
    assert not torch.equal(states[0]["soft_prompts.prompt"], states[2]["soft_prompts.prompt"])


def test_only_the_prompt_trains(learner_of: Callable[..., Learner]) -> None:
    assert list(trainable(learner_of(methods=[{"tuning": SMALL}]).family.module)) == ["soft_prompts.prompt"]


def test_migu_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'migu' cannot be combined with 'lfpt5': it trains no linear layer"):
        method_spec({"tuning": "lfpt5", "plugins": ["migu"]})
