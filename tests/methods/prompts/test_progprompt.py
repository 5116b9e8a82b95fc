"""Progressive Prompts: two tasks of it against a second implementation; which prompts are read for which task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from methods import method_spec, trainable
from methods.prompts.progprompt import ProgPrompt
from orchestrator.planning.keys import score_keys
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, GlobalBatch, assert_near, batches_of


def prompted_loss(model: nn.Module, kind: str, step: GlobalBatch, prompt: Tensor) -> Tensor:
    """The mean loss when every example begins with the prompt (behind the first token in BERT)."""
    batch = step.batch
    ids, mask = batch.source.ids, batch.source.mask
    tokens, start = model.get_input_embeddings()(ids), int(kind == "tiny-bert")
    vectors, ones = prompt.expand(len(ids), -1, -1), torch.ones(len(ids), len(prompt), dtype=mask.dtype)
    inputs = {
        "inputs_embeds": torch.cat([tokens[:, :start], vectors, tokens[:, start:]], 1),
        "attention_mask": torch.cat([mask[:, :start], ones, mask[:, start:]], 1),
    }
    if kind == "tiny-bert":
        logits = model(**inputs).logits[:, : step.num_labels]
        return nn.functional.cross_entropy(logits, batch.labels)
    labels = batch.labels
    if kind == "tiny-llama":
        labels = torch.cat([torch.full((len(ids), len(prompt)), -100), labels], 1)
    loss: Tensor = model(**inputs, labels=labels).loss
    return loss


@pytest.mark.parametrize("mlp", [None, 7])
@pytest.mark.parametrize("model", FAMILIES)
def test_two_tasks_equal_a_second_implementation(
    model: str, mlp: int | None, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of(
        model=model,
        methods=[{"tuning": {"name": "progprompt", "tokens": 4, "mlp": mlp}}],
        stream={"max_train": 24},
        training={"micro_batch": 2, "lr": 1e-2},
    )
    plain = copy.deepcopy(learner.family.module.double()).train()
    for name in ("_forward_pre_hooks", "_forward_hooks"):
        for module in plain.modules():
            getattr(module, name).clear()
    module, tuning = learner.family.module, learner.stack.tuning
    assert isinstance(tuning, ProgPrompt)
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    done: list[Tensor] = []
    torch.set_default_dtype(torch.float64)
    try:
        for task in (0, 1):
            learner.stack.grow(module, task + 1)
            new = tuning.prompts.task[-1].detach().clone().requires_grad_()
            network = (
                [p.detach().clone().requires_grad_() for p in tuning.network(task, new).parameters()] if mlp else []
            )

            def prompt(new: Tensor = new, network: list[Tensor] = network) -> Tensor:
                if not network:
                    return new
                w1, b1, w2, b2 = network
                return new + torch.tanh(new @ w1.T + b1) @ w2.T + b2

            adam = Adam([*network, new, *heads], 1e-2)
            for batch in batches_of(learner, task):
                loss = prompted_loss(plain, model, batch, torch.cat([prompt(), *reversed(done)]))
                adam.step(torch.autograd.grad(loss, [*network, new, *heads]), decayed=len(network))
            done.append(prompt().detach())
            train_task(learner, task, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(tuning.prompts.task) == 2
    for task in (0, 1):
        assert_near(tuning.prompts.task[task], done[task], f"prompt {task}")
    for name, p in zip(["weight", "bias"], heads, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)


@pytest.mark.parametrize("model", FAMILIES)
def test_only_the_newest_prompt_and_a_head_train(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["progprompt"])
    module = learner.family.module
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    for task in (0, 1):
        train_task(learner, task, lambda event: None)
        names = {n for n in trainable(module) if "classifier" not in n}
        assert names == {f"soft_prompts.task.{task}"}
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters() if n in before and "classifier" not in n)
    assert {n for n in learner.weights() if "classifier" not in n} == {f"soft_prompts.task.{t}" for t in (0, 1)}


def test_a_task_reads_its_own_prompts_and_earlier_ones(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "progprompt", "tokens": 2}}])
    module, tuning = learner.family.module, learner.stack.tuning
    assert isinstance(tuning, ProgPrompt)
    embeds, mask = torch.zeros(1, 5, 32), torch.ones(1, 5)
    learner.stack.before_scoring(module, 3)
    assert tuning.vectors(embeds, mask).shape == (1, 0, 32), "before any training there is none"
    learner.stack.grow(module, 3)
    p = list(tuning.prompts.task)
    for task, expected in ((0, [p[0]]), (1, [p[1], p[0]]), (2, [p[2], p[1], p[0]]), (4, [p[2], p[1], p[0]])):
        learner.stack.before_scoring(module, task)
        assert torch.equal(tuning.vectors(embeds, mask)[0], torch.cat(expected))
    learner.stack.before_scoring(module, 0)
    learner.stack.after_scoring(module)
    assert torch.equal(tuning.vectors(embeds, mask)[0], torch.cat([p[2], p[1], p[0]])), (
        "those of the task that is trained"
    )


def test_old_tasks_are_never_forgotten(sequence_of: Callable[..., SequencePlan]) -> None:
    """Without a shared head, nothing that an old task reads changes: its scores are constant from its own training on."""
    view = run_sequence(sequence_of(methods=["progprompt"], training={"lr": 0.1, "epochs": 3}))
    matrix = view.matrix()
    for task in range(5):
        assert len(set(matrix[task + 1 :, task])) == 1


def test_a_task_that_comes_twice_has_two_scores(sequence_of: Callable[..., SequencePlan]) -> None:
    """Either time another prompt reads it; a method that is not told the task id scores both alike."""
    task = SimpleNamespace(split_hash=lambda split: "same", scorer="exact-match")
    twice = SimpleNamespace(tasks=[task] * 2, labels_until=lambda count: [])
    told, untold = (
        score_keys(["key"], s.model, twice, s.method, "test")[0]  # type: ignore[arg-type]
        for s in (sequence_of(methods=[m]) for m in ("progprompt", "ft"))
    )
    assert len(set(told)) == 2
    assert len(set(untold)) == 1


def test_migu_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'migu' cannot be combined with 'progprompt': it trains no linear layer"):
        method_spec({"tuning": "progprompt", "plugins": ["migu"]})
