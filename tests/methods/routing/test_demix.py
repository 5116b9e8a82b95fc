"""DEMix: probabilities by hand; training, the choice of the first weights and mixing against a second implementation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Context, TokenStream, trainable
from methods.routing.demix import Demix, DemixSettings, log_likelihoods, log_probabilities
from methods.routing.feed_forward import FeedForwardExperts
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy
from tests.methods.reference import Adam, assert_near, batches_of, mean_loss

# the small models' feed-forward blocks: width 32, inner width 64; BERT's have biases, Llama's a gate; T5 has 2 + 2 blocks
SIZES = {"tiny-t5": 4 * 2 * 32 * 64, "tiny-bert": 2 * (2 * 32 * 64 + 32 + 64), "tiny-llama": 2 * 3 * 32 * 64}
VOCABULARY = 2372
TASKS = 5


def demix_of(counts: Sequence[Sequence[int]], **settings: Any) -> Demix:
    """With two feed-forward blocks as its only layers and counts as after their tasks."""
    demix = Demix(DemixSettings(**settings), Context(0))
    layer = FeedForwardExperts(nn.Linear(1, 1).double(), demix.routing)
    layer.set_experts(len(counts))
    demix.layers = {"layer": layer}
    demix.counts = [torch.tensor(of_task) for of_task in counts]
    return demix


def test_probabilities_by_hand() -> None:
    counts = torch.tensor([[3, 0, 1], [0, 0, 0]])
    # (3 + 1/2) / (4 + 3/2) and so on; a task without texts knows nothing
    expected = torch.tensor([[7 / 11, 1 / 11, 3 / 11], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(log_probabilities(counts, 0.5).exp(), expected)
    ids = torch.tensor([[0, 0, 2], [1, 2, 0]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 0]])
    found = log_likelihoods(ids, mask, expected.log()).exp()
    # 7 · 7 · 3 / 11^3 and 1 / 27; of the second text the middle token alone is real
    torch.testing.assert_close(found, torch.tensor([[147 / 1331, 1 / 27], [3 / 11, 1 / 3]], dtype=torch.float64))


def test_gates_by_hand() -> None:
    # smoothed: 2/4 2/4; 1/4 3/4; 3/4 1/4
    counts = [[1, 1], [0, 2], [2, 0]]
    ids = torch.tensor([[1, 1], [0, 1]])
    mask = torch.tensor([[1, 1], [1, 0]])
    # p(text | e) in sixteenths 4, 9, 1 and, of the text of one token, in fourths 2, 1, 3
    expected = torch.tensor([[4 / 14, 9 / 14, 1 / 14], [2 / 6, 1 / 6, 3 / 6]], dtype=torch.float64)
    torch.testing.assert_close(demix_of(counts, smoothing=1.0).gates(ids, mask, False), expected)
    two = demix_of(counts, smoothing=1.0, top_k=2).gates(ids, mask, False)
    expected = torch.tensor([[4 / 13, 9 / 13, 0], [2 / 5, 0, 3 / 5]], dtype=torch.float64)
    torch.testing.assert_close(two, expected)
    assert demix_of(counts, smoothing=1.0, top_k=1).gates(ids, mask, False).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert demix_of(counts, smoothing=1.0).gates(ids, mask, True).tolist() == [[0, 0, 1], [0, 0, 1]], "while training"


def test_a_long_text_is_answered_by_the_best_expert_alone() -> None:
    """Its length is not divided out: 400 tokens, each a little more probable in the second task."""
    ids = torch.tensor([[0] * 180 + [1] * 220])
    found = demix_of([[50, 50], [45, 55]], smoothing=1e-9).gates(ids, torch.ones_like(ids), False)
    difference = 180 * math.log(45 / 50) + 220 * math.log(55 / 50)
    assert found[0, 1].item() == pytest.approx(1 / (1 + math.exp(-difference)), rel=1e-6)
    assert found[0, 1] > 0.8


def test_counts_are_whole_with_any_number_of_workers(learner_of: Callable[..., Learner]) -> None:
    """61 / 7 · 7 is a little less than 61 in floating point."""
    learner = learner_of(methods=[{"tuning": "demix"}], stream={"max_train": 8})
    learner.stack.grow(learner.family.module, 1)
    tuning = demix_in(learner)
    tuning.context = Context(0, mean_over_workers=lambda tensor: tensor / 7, workers=7)
    ones = torch.ones(1, 61, dtype=torch.long)
    texts = toy.batch_with_mask(ones)
    tuning.before_task(learner.family.module, 0, [texts])
    assert tuning.counts[0].tolist() == [61] + [0] * (VOCABULARY - 1)


def test_the_first_weights_are_those_of_the_expert_with_the_highest_mean_posterior(
    learner_of: Callable[..., Learner],
) -> None:
    """Three short texts are likelier in the second task, and one long text in the first, by far: their sum would decide so."""
    learner = learner_of(methods=[{"tuning": {"name": "demix", "smoothing": 1e-3}}], stream={"max_train": 8})
    tuning = demix_in(learner)
    learner.stack.grow(learner.family.module, 3)
    layer = next(iter(tuning.layers.values()))
    with torch.no_grad():
        for expert, block in layer.experts.items():
            for parameter in block.parameters():
                parameter.fill_(int(expert))
    empty = torch.zeros(VOCABULARY, dtype=torch.long)
    tuning.counts = [empty.clone(), empty.clone()]
    for task, (first, second) in enumerate([(60, 40), (40, 60)]):
        tuning.counts[task][0], tuning.counts[task][1] = first, second
    # 0.6^3 against 0.4^3 in three texts (posterior 0.77), and 0.6^40 against 0.4^40
    ids = torch.zeros(4, 40, dtype=torch.long)
    mask = torch.zeros(4, 40, dtype=torch.long)
    ids[:3] = 1
    mask[:3, :3] = 1
    mask[3] = 1
    batch = toy.batch_with_mask(mask).replace(source=TokenStream(ids, mask))
    tuning.before_task(learner.family.module, 2, [batch])
    assert {float(w.detach().unique()) for w in layer.experts["2"].parameters()} == {1.0}
    assert tuning.counts[2][:3].tolist() == [40, 9, 0]


def demix_in(learner: Learner) -> Demix:
    tuning = learner.stack.tuning
    assert isinstance(tuning, Demix)
    return tuning


class Plain:
    """The second implementation: a model without the method, whose feed-forward blocks are computed from lists of weights."""

    def __init__(self, learner: Learner) -> None:
        module: Any = learner.family.module
        self.model = module.double()
        self.kind: str = module.config.model_type
        self.blocks = self.find()
        # for each block and expert its weights
        self.experts: list[list[list[Tensor]]] = [[] for _ in self.blocks]
        self.gates_BE = torch.zeros(0)
        for number, block in enumerate(self.blocks):
            self.replace(number, block)

    def find(self) -> list[Any]:
        if self.kind == "t5":
            return [stack.block[i].layer[-1] for stack in (self.model.encoder, self.model.decoder) for i in range(2)]
        layers = self.model.bert.encoder.layer if self.kind == "bert" else self.model.model.layers
        return list(layers)

    def weights_of(self, block: Any) -> list[Tensor]:
        """The pretrained ones."""
        if self.kind == "t5":
            return [block.DenseReluDense.wi.weight, block.DenseReluDense.wo.weight]
        if self.kind == "bert":
            first, second = block.intermediate.dense, block.output.dense
            return [first.weight, first.bias, second.weight, second.bias]
        return [block.mlp.gate_proj.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight]

    def formula(self, x: Tensor, w: list[Tensor]) -> Tensor:
        if self.kind == "t5":
            return F.relu(x @ w[0].T) @ w[1].T
        if self.kind == "bert":
            return F.gelu(x @ w[0].T + w[1]) @ w[2].T + w[3]
        return (F.silu(x @ w[0].T) * (x @ w[1].T)) @ w[2].T

    def replace(self, number: int, block: Any) -> None:
        name = {"t5": "DenseReluDense", "bert": "intermediate", "llama": "mlp"}[self.kind]
        pretrained = [w.detach().clone() for w in self.weights_of(block)]
        self.experts[number].append(pretrained)
        plain = self

        class Mixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                total = torch.zeros(())
                for expert, weights in enumerate(plain.experts[number][1:]):
                    total = total + plain.gates_BE[:, expert, None, None] * plain.formula(x, weights)
                return total

        setattr(block, name, Mixed())
        if self.kind == "bert":
            block.output.dense = nn.Identity()

    def add_expert(self, parent: int | None) -> list[Tensor]:
        """A copy of another expert, or of the pretrained blocks; its weights, to be trained."""
        added = []
        for of_block in self.experts:
            source = of_block[0 if parent is None else 1 + parent]
            of_block.append([w.detach().clone().requires_grad_() for w in source])
            added += of_block[-1]
        return added


def posteriors(learner: Learner, texts: Sequence[Sequence[int]], tasks: int, smoothing: float) -> list[list[float]]:
    """Bayes' rule for each text over the first tasks, one token at a time."""
    counts = []
    for task in range(tasks):
        counts.append(Counter(i for feature in learner.features(task) for i in feature["source"]))
    found = []
    for text in texts:
        logs = []
        for count in counts:
            total = sum(count.values()) + smoothing * VOCABULARY
            logs.append(sum(math.log((count[i] + smoothing) / total) for i in text))
        powers = [math.exp(number - max(logs)) for number in logs]
        found.append([power / sum(powers) for power in powers])
    return found


def sources(learner: Learner, task: int, count: int | None = None) -> list[list[int]]:
    return [feature["source"] for feature in learner.features(task)[:count]]


@pytest.mark.parametrize("model", FAMILIES)
def test_five_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    smoothing = 1.0
    settings = {"name": "demix", "smoothing": smoothing}
    few = {"max_train": 24, "first": TASKS}
    learner = learner_of(model=model, methods=[{"tuning": settings}], stream=few)
    learner.family.module.double()
    plain = Plain(learner_of(model=model, methods=["ft"], stream=few))
    heads = [p for n, p in plain.model.named_parameters() if "classifier" in n]
    parents: list[int] = []
    torch.set_default_dtype(torch.float64)
    try:
        for task in range(TASKS):
            parent = None
            if task:
                sums = [
                    sum(column)
                    for column in zip(*posteriors(learner, sources(learner, task), task, smoothing), strict=True)
                ]
                parent = sums.index(max(sums))
                parents.append(parent)
            added = plain.add_expert(parent)
            adam = Adam([*added, *heads], 1e-3)
            for batch in batches_of(learner, task):
                plain.gates_BE = F.one_hot(torch.full((len(batch.batch.classes),), task), task + 1).double()
                adam.step(torch.autograd.grad(mean_loss(plain.model, batch), [*added, *heads]), decayed=len(added))
            train_task(learner, task, lambda event: None)
        compare_weights(learner, plain)
        compare_answers(learner, plain, smoothing)
    finally:
        torch.set_default_dtype(torch.float32)
    # else the test would not see whether it is the newest, the first or the most probable expert
    assert parents[1:] not in ([0, 0, 0], [1, 2, 3])


def compare_weights(learner: Learner, plain: Plain) -> None:
    for number, layer in enumerate(demix_in(learner).layers.values()):
        for expert in range(TASKS):
            found = list(layer.experts[str(expert)].parameters())
            for i, (w, expected) in enumerate(zip(found, plain.experts[number][1 + expert], strict=True)):
                assert_near(w, expected, f"block {number}, expert {expert}, weight {i}")


def compare_answers(learner: Learner, plain: Plain, smoothing: float) -> None:
    """The logits under the mixture, of pieces of all tasks' texts in one batch: whole ones would be sure of one task."""
    learner.family.module.eval()
    plain.model.eval()
    texts = [text[-5 - i : -2] for task in range(TASKS) for i, text in enumerate(sources(learner, task, 3))]
    expected = torch.tensor(posteriors(learner, texts, TASKS, smoothing))
    assert ((expected > 0.05) & (expected < 0.95)).sum() > 10, "else nothing is mixed"
    plain.gates_BE = expected
    longest = max(map(len, texts))
    pad = learner.family.pad
    # a decoder's padding comes first when it answers
    ids = torch.tensor([[pad] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    if not learner.family.generates:
        ids, mask = ids.flip(1), mask.flip(1)
    outputs = []
    models: list[Any] = [learner.family.module, plain.model]
    for model in models:
        with torch.no_grad():
            if learner.family.generates:
                found = model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False,
                    return_dict_in_generate=True, output_logits=True,
                )  # fmt: skip
                outputs.append(torch.stack(found.logits, 1))
            else:
                outputs.append(model(input_ids=ids, attention_mask=mask).logits)
    assert_near(outputs[0], outputs[1], "logits")


@pytest.mark.parametrize("model", FAMILIES)
def test_a_checkpoint_holds_each_expert_once(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    stream = {"max_train": 8, "first": 3}
    sequence = sequence_of(model=model, methods=[{"tuning": "demix"}], stream=stream)
    run_sequence(sequence, evaluate=False)
    states = [Store(Path(sequence.out)).load(key) for key in sequence.keys[1:]]
    for tasks, state in enumerate(states, start=1):
        experts = {name: w for name, w in state.weights.items() if ".experts." in name}
        assert sum(w.numel() for w in experts.values()) == tasks * SIZES[model]
        assert all(name.startswith("classifier.") for name in state.weights.keys() - experts.keys())
        assert state.method["0:demix"]["counts"].shape == (tasks, VOCABULARY)
        # what was learnt stays as it is
        for name, w in experts.items():
            if f".experts.{tasks - 1}." not in name:
                assert torch.equal(w, states[tasks - 2].weights[name]), name
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    text = torch.tensor(sources(learner_with(learner, states[0], 1), 0, 1))
    for tasks in (1, 3, 2):
        tuning = demix_in(learner_with(learner, states[tasks - 1], tasks))
        assert {len(layer.experts) for layer in tuning.layers.values()} == {tasks}
        parts = {name.split(".experts.")[1][0] for name in trainable(learner.family.module) if ".experts." in name}
        assert parts == {str(tasks - 1)}
        # every task that the state knows is weighed, and no other
        gates = tuning.gates(text, torch.ones_like(text), False)
        assert gates.shape == (1, tasks)
        expected = posteriors(learner, text.tolist(), tasks, 0.1)
        torch.testing.assert_close(gates, torch.tensor(expected), rtol=1e-4, atol=1e-12)


def learner_with(learner: Learner, state: State, tasks: int) -> Learner:
    learner.load(state, tasks)
    return learner
