"""What training costs, known before the first step: steps, tokens and floating-point operations of a task.

Tokens are the real ones of inputs and answers: no padding, no vectors of soft prompts. FLOPs are the model's on these tokens,
not the machine's. A forward pass takes 2 for every token and every parameter of a matrix product that reads it; the backward
pass takes as many for the activations, and as many again for the parameters that train. A method's own passes count as it
says (`Method.extra_passes`), vectors of soft prompts as tokens of the input.

Which token a parameter reads: of an encoder-decoder, the encoder's and the decoder's keys and values of the encoder's
states read the input, all others (with the output over the vocabulary) the answer; of a decoder or an encoder, all read
all. Not counted: attention's products of activations with each other, embeddings, norms; what acts once for an example (a
pooler, a task head, whose size would moreover depend on the stream's later labels); the label texts that a sentence encoder
reads along; what methods compute of weights alone, and what runs once a task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from methods.seam.cost import ExtraPasses
from orchestrator.config.training import TrainingConfig
from orchestrator.models.family import Family, Feature
from orchestrator.training.batches import steps_in_epoch
from orchestrator.training.learner import Learner

# The parts of a decoder that read the encoder's states, by their names in T5 and in BART and its kin
_OF_ENCODER_STATES = re.compile(r"(EncDecAttention\.[kv]|encoder_attn\.[kv]_proj)(\.|$)")


NONE = ExtraPasses()


@dataclass(frozen=True)
class FlopsModel:
    """Of a step, as parameters of matrix products: those that a token of the input reads, and one of the answer, with those
    of each that train; `added` vectors come with every input, and `passes` with every step.
    """

    source: int
    target: int
    source_trained: int
    target_trained: int
    added: int = 0
    passes: ExtraPasses = NONE

    def flops(self, batch: Sequence[Feature]) -> int:
        """Of one step on a global batch."""
        source = sum(len(f["source"]) + self.added for f in batch)
        target = sum(len(f.get("target", ())) for f in batch)
        forward = 2 * (self.source * source + self.target * target)
        gradients = 2 * (self.source_trained * source + self.target_trained * target)
        more = self.passes
        return round((2 + more.forward + 2 * more.training) * forward + (1 + more.training) * gradients)


def tokens(batch: Sequence[Feature]) -> int:
    """Real tokens of inputs and answers."""
    return sum(len(f["source"]) + len(f.get("target", ())) for f in batch)


def flops_model(learner: Learner, task_id: int) -> FlopsModel:
    """Of a step of a task. Brings the model to the structure that it has while the task is trained."""
    family, stack, place = learner.family, learner.stack, learner.place(task_id)
    stack.grow(family.module, place + 1)
    trained = {id(w) for w in stack.trains(family.module).values()}
    source, target = matrices(family)

    def size(weights: Sequence[nn.Parameter], of_trained: bool = False) -> int:
        return sum(w.numel() for w in weights if not of_trained or id(w) in trained)

    return FlopsModel(
        size(source),
        size(target),
        size(source, of_trained=True),
        size(target, of_trained=True),
        stack.added_tokens(place),
        stack.extra_passes(place, learner.sequence.training.global_batch),
    )


def matrices(family: Family) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of matrix products that a token of the input reads, and those that one of the answer reads."""
    module: Any = family.module
    heads = {id(p) for p in family.head()}
    found = [(name, w) for name, part in module.named_modules() if (w := _matrix(name, part)) is not None]
    found = [(name, weight) for name, weight in found if id(weight) not in heads]
    if not module.config.is_encoder_decoder:
        weights = [weight for _, weight in found]
        return weights, weights
    encoder = {id(m) for m in module.get_encoder().modules()}
    inner = {name for name, part in module.named_modules() if id(part) in encoder}
    reads_input = [name in inner or bool(_OF_ENCODER_STATES.search(name)) for name, _ in found]
    source = [w for (_, w), reads in zip(found, reads_input, strict=True) if reads]
    return source, [w for (_, w), reads in zip(found, reads_input, strict=True) if not reads]


def _matrix(name: str, module: nn.Module) -> nn.Parameter | None:
    """The matrix of its own by which a module multiplies each token's vector, if it does."""
    weight = module._parameters.get("weight")  # a wrapper's attribute would be that of the layer which it wraps
    if weight is None or weight.ndim != 2 or isinstance(module, nn.Embedding) or "pooler" in name.split("."):
        return None
    return weight


def epoch_steps(training: TrainingConfig, task: str, examples: int, fresh: int) -> int:
    """Optimizer steps of a task without a budget, of which each takes `fresh` examples."""
    return training.epochs_of(task) * steps_in_epoch(examples, fresh)


def task_steps(learner: Learner, task_id: int) -> int:
    """Optimizer steps of a task: those of its epochs, or the fewest that reach the budget. Joint training has the budget
    of all tasks together.
    """
    if not learner.stack.tuning.trains_by_gradient:
        return 0
    sequence = learner.sequence
    together = len(sequence.method.run_kind.tasks_to_train(task_id, len(sequence.tasks)))
    training, examples = sequence.training, len(learner.training_set(task_id))
    if training.budget is None:
        fresh = learner.stack.num_new_examples(learner.place(task_id), training.global_batch)
        return epoch_steps(training, sequence.tasks[task_id], examples, fresh)
    if training.budget.steps is not None:
        return training.budget.steps * together
    count = flops_model(learner, task_id).flops if training.budget.unit == "flops" else tokens
    usage, step = 0, 0
    batches = learner.global_batches(task_id)
    while usage < training.budget.amount * together:
        usage, step = usage + count(next(batches)), step + 1
    return step
