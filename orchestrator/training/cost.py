"""What training costs, known before the first step: steps, tokens and floating-point operations of a task.

Tokens are the real ones of inputs and answers, as often as the model reads them: no padding, no vectors of soft prompts, but
old examples beside the batch, and the batch again where a teacher reads it. FLOPs are the model's on these tokens, not the
machine's. A forward pass takes 2 for every token and every parameter of a matrix product that reads it; the backward pass
takes as many for the activations, and as many again for the parameters that train. A method's own passes count as it says
(`Cost.extra_passes`), an old example as the batch's mean one; vectors of soft prompts count in FLOPs as tokens of the input.

Which token a parameter reads: of an encoder-decoder, the encoder's and the decoder's keys and values of the encoder's
states read the input, all others (with the output over the vocabulary) the answer; of a decoder or an encoder, all read
all. Not counted: attention's products of activations with each other, embeddings, norms; what acts once for an example (a
pooler, a task head, whose size would moreover depend on the stream's later labels); the label texts that a sentence encoder
reads along; what methods compute of weights alone, and what runs once a task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from methods.seam.cost import ExtraPasses
from methods.shared.quantised import QuantisedLinear
from orchestrator.config.training import TrainingConfig
from orchestrator.models.family import Family, Feature
from orchestrator.training.batches import steps_in_epoch
from orchestrator.training.learner import Learner

# The parts of a decoder that read the encoder's states, by their names in T5 and in BART and its kin
_OF_ENCODER_STATES = re.compile(r"(EncDecAttention\.[kv]|encoder_attn\.[kv]_proj)(\.|$)")


NONE = ExtraPasses()


@dataclass(frozen=True)
class StepCost:
    """What the tokens and FLOPs of a step follow from; sizes are numbers of parameters of matrix products.

    `source` are those that a token of the input reads, `target` those that a token of the answer reads, and of each the
    `_trained` ones train. `added` vectors come with every input, and `passes` with every step.
    """

    source: int
    target: int
    source_trained: int
    target_trained: int
    added: int = 0
    passes: ExtraPasses = NONE

    def tokens(self, batch: Sequence[Feature]) -> int:
        """The real tokens that the model reads in one step on a global batch, the method's own passes included."""
        return round((1 + self.passes.forward + self.passes.training) * sum(count_tokens(batch)))

    def flops(self, batch: Sequence[Feature]) -> int:
        """The FLOPs of one step on a global batch."""
        source_tokens, target_tokens = count_tokens(batch)
        source_tokens += self.added * len(batch)
        # 2: a multiplication and an addition for each parameter and token
        forward = 2 * (self.source * source_tokens + self.target * target_tokens)
        gradients = 2 * (self.source_trained * source_tokens + self.target_trained * target_tokens)
        extra = self.passes
        # A backward pass takes a forward's worth for the activations, and the gradients of what trains
        return round((2 + extra.forward + 2 * extra.training) * forward + (1 + extra.training) * gradients)


def count_tokens(batch: Sequence[Feature]) -> tuple[int, int]:
    """Real tokens of the inputs, and of the answers (none where labels are classes)."""
    source_tokens = 0
    target_tokens = 0
    for feature in batch:
        source_tokens += len(feature["source"])
        target_tokens += len(feature.get("target", ()))
    return source_tokens, target_tokens


def step_cost(learner: Learner, task_id: int) -> StepCost:
    """What a step of a task costs. Gives the model the structure that it has while the task is trained."""
    family = learner.family
    stack = learner.stack
    position = learner.task_position(task_id)
    # Adapters that only this task brings along count too
    stack.grow(family.module, position + 1)
    trained_ids = set(map(id, stack.trains(family.module).values()))
    source, target = matrices(family, set(map(id, stack.unread(family.module).values())))
    sizes = _quantised_sizes(family.module)
    return StepCost(
        _size(source, sizes),
        _size(target, sizes),
        _size(source, sizes, trained_ids),
        _size(target, sizes, trained_ids),
        stack.added_tokens(position),
        stack.extra_passes(position, learner.sequence.training.global_batch),
    )


def _quantised_sizes(module: nn.Module) -> dict[int, int]:
    """How many numbers the codes of each quantised weight stand for, by its id: a byte may hold two."""
    sizes = {}
    for part in module.modules():
        if isinstance(part, QuantisedLinear):
            sizes[id(part.weight)] = part.out_features * part.in_features
    return sizes


def _size(weights: Sequence[nn.Parameter], quantised: Mapping[int, int], only: set[int] | None = None) -> int:
    """How many numbers weights have; of those alone whose ids are in `only`, where it is given."""
    size = 0
    for weight in weights:
        if only is None or id(weight) in only:
            size += quantised.get(id(weight), weight.numel())
    return size


def matrices(family: Family, unread_ids: set[int] | None = None) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of matrix products that a token of the input reads, and those that one of the answer reads.

    Those whose ids are in `unread_ids` are left out: no token reads them.
    """
    module: Any = family.module
    left_out = set(map(id, family.head())) | (unread_ids or set())
    weights = _matrices_by_name(module, left_out)
    if not module.config.is_encoder_decoder:
        # One stack of layers reads all tokens
        every = list(weights.values())
        return every, every
    encoder_ids = set(map(id, module.get_encoder().modules()))
    source = []
    target = []
    for name, part in module.named_modules():
        if name not in weights:
            continue
        if id(part) in encoder_ids or _OF_ENCODER_STATES.search(name):
            source.append(weights[name])
        else:
            target.append(weights[name])
    return source, target


def _matrices_by_name(module: nn.Module, left_out: set[int]) -> Mapping[str, nn.Parameter]:
    """The matrices by which modules multiply each token's vector, by the module's name, but for those of some ids."""
    found = {}
    for name, part in module.named_modules():
        weight = _matrix(name, part)
        if weight is not None and id(weight) not in left_out:
            found[name] = weight
    return found


def _matrix(name: str, module: nn.Module) -> nn.Parameter | None:
    """The matrix of its own by which a module multiplies each token's vector, if it does."""
    # Not `module.weight`: a wrapper's attribute would be that of the layer which it wraps, counted a second time
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2 or isinstance(module, nn.Embedding) or "pooler" in name.split("."):
        return None
    return weight


def epoch_steps(training: TrainingConfig, task: str, examples: int, num_new: int) -> int:
    """Optimizer steps of a task without a budget, of which each takes `num_new` examples of its training set."""
    return training.epochs_of(task) * steps_in_epoch(examples, num_new)


def task_steps(learner: Learner, task_id: int) -> int:
    """Optimizer steps of a task: those of its epochs, or the fewest that reach the budget.

    Joint training has the budget of all tasks together.
    """
    if not learner.stack.tuning.trains_by_gradient:
        return 0
    sequence = learner.sequence
    training = sequence.training
    num_together = len(sequence.method.run_kind.tasks_to_train(task_id, len(sequence.tasks)))
    if training.budget is None:
        num_new = learner.stack.num_new_examples(learner.task_position(task_id), training.global_batch)
        num_examples = len(learner.training_set(task_id))
        return epoch_steps(training, sequence.tasks[task_id], num_examples, num_new)
    if training.budget.steps is not None:
        return training.budget.steps * num_together
    costs = _tokens_or_flops(learner, task_id, training.budget.unit)
    return _steps_to_reach(training.budget.amount * num_together, costs)


def _tokens_or_flops(learner: Learner, task_id: int, unit: str) -> Iterator[int]:
    """The cost of each step of a task, without end."""
    cost = step_cost(learner, task_id)
    for batch in learner.global_batches(task_id):
        if unit == "flops":
            yield cost.flops(batch)
        else:
            yield cost.tokens(batch)


def _steps_to_reach(amount: float, costs: Iterator[int]) -> int:
    usage = 0
    steps = 0
    while usage < amount:
        usage += next(costs)
        steps += 1
    return steps
