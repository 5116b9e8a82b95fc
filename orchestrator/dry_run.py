"""What an experiment will take, before anything starts: `orchestrator plan`.

Steps, tokens, FLOPs and states are counted, by the same functions that training counts with, on a model that has shapes and no
values. Memory and hours are estimates, whose formulas are in `memory_bytes` and `Totals.hours`.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from methods.seam.cost import ExtraPasses
from orchestrator.config.experiment import RunConfig
from orchestrator.models.blocks import blocks_of
from orchestrator.models.source import find_model
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.numbers import mean_usage
from orchestrator.store.checkpoints import Store
from orchestrator.training.cost import StepCost, count_tokens, step_cost, task_steps
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel

GB = 1e9


@dataclass(frozen=True)
class SequenceCost:
    """What one sequence takes. `answers` are the examples that scoring asks the model about; bytes are of one GPU and of disk."""

    steps: int
    tokens: int
    flops: int
    answers: int
    scoring_flops: int
    memory_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Totals:
    """What all sequences of a method take together, shared states counted once."""

    method: str
    sequences: int
    states: int
    steps: int
    tokens: int
    flops: int
    answers: int
    scoring_flops: int
    memory_bytes: int
    disk_bytes: int

    def hours(self, tflops: float) -> float:
        """GPU-hours of training and scoring, where a GPU sustains so many TFLOP a second."""
        return (self.flops + self.scoring_flops) / (tflops * 1e12) / 3600


def estimate(config: RunConfig, console: Console, gpu: bool = True) -> list[Totals]:
    """What each method of an experiment takes. Writes nothing into the experiment's folder. Raises UserError as `plan` does."""
    with tempfile.TemporaryDirectory(prefix="plan-") as nowhere:
        sequences = plan(config.model_copy(update={"out": nowhere}), gpu=gpu)
        by_method: dict[str, list[SequencePlan]] = defaultdict(list)
        for sequence in sequences:
            by_method[sequence.method.label].append(sequence)
        # states that methods share are trained once: the first method that has one trains it
        known: set[str] = set()
        totals = []
        for method in track(by_method, "counting", console=console, transient=True):
            totals.append(_totals(method, by_method[method], config, known))
    return totals


def _totals(method: str, sequences: Sequence[SequencePlan], config: RunConfig, known: set[str]) -> Totals:
    """The sequences of a method; those of one stream differ by their seeds alone, so one of them is counted for all."""
    store = Store(Path(config.out))
    costs: dict[str, tuple[list[SequenceCost], int]] = {}
    steps = tokens = flops = answers = scoring_flops = memory = states = disk = 0
    for sequence in sequences:
        # by what an expert's single run trains as well
        name = f"{sequence.stream.name} {sequence.tasks}"
        if name not in costs:
            costs[name] = _task_costs(sequence, config)
        by_task, initial_answers = costs[name]
        answers += initial_answers
        for task_id, cost in enumerate(by_task):
            memory = max(memory, cost.memory_bytes)
            answers += cost.answers
            scoring_flops += cost.scoring_flops
            key = sequence.keys[task_id + 1]
            if key in known or store.has(key):
                continue
            known.add(key)
            states += 1
            steps += cost.steps
            tokens += cost.tokens
            flops += cost.flops
            disk += cost.state_bytes
    return Totals(method, len(sequences), states, steps, tokens, flops, answers, scoring_flops, memory, disk)


def _task_costs(sequence: SequencePlan, config: RunConfig) -> tuple[list[SequenceCost], int]:
    """What each task of a sequence takes with the scores after it, and the answers that scoring the initial model takes."""
    learner = _skeleton(sequence)
    num_answers = 0
    answer_flops = 0
    for task in learner.stream.tasks:
        examples = task.read(sequence.split)
        num_answers += len(examples)
        answer_flops += _answer_flops(learner, task.name)
    costs = []
    for task_id in range(len(sequence.tasks)):
        kind = sequence.method.run_kind
        trained = kind.is_trained(task_id, len(sequence.tasks))
        costs.append(_task_cost(learner, task_id, trained, config, num_answers, answer_flops))
    return costs, num_answers


def _skeleton(sequence: SequencePlan) -> Learner:
    """The sequence's model and method without values."""
    stream = sequence.open_stream("a count of its examples, for a plan")
    learner = Learner(sequence, stream, Parallel(device=torch.device("meta")))
    with _without_values():
        learner.load_initial(replace(find_model(sequence.model), has_values=False))
    return learner


@contextlib.contextmanager
def _without_values() -> Iterator[None]:
    """What is made has shapes alone, and that nothing can be copied into it is what is meant here."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        yield


def _task_cost(
    learner: Learner, task_id: int, trained: bool, config: RunConfig, num_answers: int, answer_flops: int
) -> SequenceCost:
    steps = tokens = flops = 0
    with _without_values():
        cost = step_cost(learner, task_id)
    # outside: what a draw decides must have a value, unlike a weight
    if trained and learner.stack.tuning.trains_by_gradient:
        steps = task_steps(learner, task_id)
        tokens, flops = _step_totals(learner, task_id, cost, steps)
    weights = learner.weights()
    state = sum(weight.numel() * weight.element_size() for weight in weights.values())
    # an annealed task ends in two states, and the optimizer's
    if learner.sequence.training.schedule == "infinite":
        state *= 4
    memory = memory_bytes(learner, config)
    return SequenceCost(steps, tokens, flops, num_answers, answer_flops, memory, state)


def _step_totals(learner: Learner, task_id: int, cost: StepCost, steps: int) -> tuple[int, int]:
    """(tokens, FLOPs) of a task's steps, each as the mean one of its training set."""
    features = learner.training_set(task_id)
    size = learner.sequence.training.global_batch
    # the last one is filled up, so that each is whole
    per_step = size / len(features)
    tokens = cost.tokens(features) * per_step
    flops = cost.flops(features) * per_step
    return round(tokens * steps), round(flops * steps)


def _answer_flops(learner: Learner, task_name: str) -> int:
    """The FLOPs of one pass over a task's test examples: the reading of each text, and of an answer of the labels' length."""
    task = next(task for task in learner.stream.tasks if task.name == task_name)
    features = learner.family.features(task, task.read(learner.sequence.split))
    source_tokens, target_tokens = count_tokens(features)
    with _without_values():
        cost = replace(step_cost(learner, 0), passes=ExtraPasses())
    return 2 * (cost.source * source_tokens + cost.target * target_tokens)


def memory_bytes(learner: Learner, config: RunConfig) -> int:
    """What a GPU holds at most in a step, in bytes: weights, gradients, AdamW's moments and what the backward pass needs.

    Of a weight that trains 16 bytes (float32 weight, gradient, two moments), of a frozen one 4, or 2 in bf16. With `fsdp` each
    worker has its part of what is sharded, and the largest block whole; `hsdp` is counted as one node. Between the passes a
    block of width h keeps about 34 h bytes a token in 16 bits (arXiv 2205.05198, without attention's square term, which fused
    attention does not keep), twice that in float32; with `checkpoint_activations` its input alone. What a method keeps beside
    (`orchestrator list methods`) is not counted.
    """
    sequence = learner.sequence
    model: Any = learner.family.module
    frozen = sharded = whole = 0
    trains_all = all(parameter.requires_grad for parameter in model.parameters())
    for parameter in model.parameters():
        size = parameter.numel() * parameter.element_size()
        if parameter.requires_grad and trains_all:
            sharded += 4 * size
        elif parameter.requires_grad:
            whole += 4 * size
        else:
            frozen += size
    sharded += frozen
    if config.scaling.strategy != "ddp" and config.scaling.workers > 1:
        largest = max(sum(p.numel() for p in block.parameters()) for block in blocks_of(model))
        sharded = sharded // config.scaling.workers + 4 * largest
    return sharded + whole + _activation_bytes(model, sequence, config.scaling.workers)


def _activation_bytes(model: Any, sequence: SequencePlan, workers: int) -> int:
    training = sequence.training
    width = int(getattr(model.config, "hidden_size", 0))
    bytes_each = 2 if sequence.model.precision == "bf16" else 4
    examples = training.global_batch // workers
    # of "auto" the first try; what does not fit is cut until it does
    if isinstance(training.micro_batch, int):
        examples = training.micro_batch
    num_tokens = examples * (sequence.model.max_source + sequence.model.max_target)
    of_a_block = 17 * bytes_each * width * num_tokens
    num_blocks = sum(1 for _ in blocks_of(model))
    if not training.checkpoint_activations:
        return num_blocks * of_a_block
    return num_blocks * bytes_each * width * num_tokens + of_a_block


def as_json(totals: Sequence[Totals], tflops: float) -> dict[str, Any]:
    """The estimate as plain values."""
    rows = []
    for total in totals:
        rows.append({**vars(total), "gpu_hours": round(total.hours(tflops), 3)})
    return {"plan": rows, "tflops": tflops}


def print_plan(config: RunConfig, totals: Sequence[Totals], tflops: float, console: Console) -> None:
    """Print a line for each method, and what all take together."""
    table = Table(
        title=f"{config.name}: what it will take",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for heading in ("states", "steps", "tokens", "FLOPs", "a GPU", "disk", "GPU hours"):
        table.add_column(heading, justify="right", no_wrap=True)
    for total in totals:
        table.add_row(*_cells(total, tflops))
    console.print(table)
    disk = sum(total.disk_bytes for total in totals)
    hours = sum(total.hours(tflops) for total in totals)
    num_sequences = sum(total.sequences for total in totals)
    console.print(
        f"Together {num_sequences} sequences, {_gigabytes(disk)} on disk and {hours:,.1f} GPU-hours at {tflops:g} TFLOP/s "
        "sustained a GPU (--tflops). States that are there, or that a line above trains, count once.",
        highlight=False,
    )
    console.print(
        "Memory and hours are estimates; what a method keeps beside the model is not in them.", highlight=False
    )


def _gigabytes(size: int) -> str:
    return f"{size / GB:,.1f} GB"


def _cells(total: Totals, tflops: float) -> list[str]:
    return [
        total.method,
        f"{total.states}",
        f"{total.steps:,}",
        mean_usage([total.tokens], "tokens"),
        mean_usage([total.flops], "flops"),
        _gigabytes(total.memory_bytes),
        _gigabytes(total.disk_bytes),
        f"{total.hours(tflops):,.2f}",
    ]
