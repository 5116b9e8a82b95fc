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
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.cluster.resources import local_resources
from orchestrator.config.experiment import RunConfig
from orchestrator.evaluation.curves.during import point_steps
from orchestrator.models.blocks import blocks_of
from orchestrator.models.source import find_model
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.numbers import mean_usage
from orchestrator.report.pruning import shown_bytes
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.training.cost import StepCost, count_tokens, step_cost, task_steps
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from streams import Task


@dataclass(frozen=True)
class TaskCost:
    """What training one task takes: of one GPU's memory, and of the disk for its state."""

    steps: int
    tokens: int
    flops: int
    memory_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Costs:
    """What each task of a sequence takes: its training, and the answers to its test examples (how many, FLOPs)."""

    training: Sequence[TaskCost]
    answers: Sequence[tuple[int, int]]


@dataclass
class Totals:
    """What all sequences of a method take together: each state and each score once, and none that is there already."""

    method: str
    sequences: int = 0
    states: int = 0
    steps: int = 0
    tokens: int = 0
    flops: int = 0
    answers: int = 0
    scoring_flops: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0

    def hours(self, tflops: float) -> float:
        """GPU-hours of training and scoring, where a GPU sustains so many TFLOP a second."""
        return (self.flops + self.scoring_flops) / (tflops * 1e12) / 3600

    def add_state(self, cost: TaskCost, stays: bool) -> None:
        """Add a state that has to be trained; `stays`: on the disk, in the end."""
        self.states += 1
        self.steps += cost.steps
        self.tokens += cost.tokens
        self.flops += cost.flops
        if stays:
            self.disk_bytes += cost.state_bytes


def estimate(config: RunConfig, console: Console, gpu: bool | None = None) -> list[Totals]:
    """What each method of an experiment takes. Writes nothing into the experiment's folder. Raises UserError as `plan` does.

    `gpu` says whether it runs on GPUs (None: whether this machine has one), which decides what precision "auto" means.
    """
    if gpu is None:
        gpu = local_resources().gpus > 0
    with tempfile.TemporaryDirectory(prefix="plan-") as nowhere:
        sequences = plan(config.model_copy(update={"out": nowhere}), gpu=gpu)
        by_method: dict[str, list[SequencePlan]] = defaultdict(list)
        for sequence in sequences:
            by_method[sequence.method.label].append(sequence)
        # what methods share is made once: by the first method that has it
        known: set[str] = set()
        totals = []
        for method in track(by_method, "counting", console=console, transient=True):
            totals.append(_totals(method, by_method[method], config, known))
    return totals


def _totals(method: str, sequences: Sequence[SequencePlan], config: RunConfig, known: set[str]) -> Totals:
    """The sequences of a method; those of one stream differ by their seeds alone, so one of them is counted for all."""
    total = Totals(method, len(sequences))
    store = Store(folder_at(config.out))
    by_stream: dict[str, Costs] = {}
    for sequence in sequences:
        # an expert's sequences are of single tasks
        name = f"{sequence.stream.name} {sequence.tasks}"
        if name not in by_stream:
            by_stream[name] = _costs(sequence, config)
        costs = by_stream[name]
        for task_id, cost in enumerate(costs.training):
            total.memory_bytes = max(total.memory_bytes, cost.memory_bytes)
            key = sequence.keys[task_id + 1]
            if key not in known and not store.has(key):
                is_last = task_id == len(costs.training) - 1
                keep = config.checkpoints.keep
                total.add_state(cost, stays=keep == "all" or (keep == "last" and is_last))
                _add_looks(total, costs, task_id, config)
            known.add(key)
        _add_scores(total, sequence, costs, store, known)
    return total


def _add_looks(total: Totals, costs: Costs, task_id: int, config: RunConfig) -> None:
    """Add the scores amid the training of a task, where these are asked for."""
    during = config.evaluation.during
    if during is None or costs.training[task_id].steps == 0:
        return
    num_points = len(point_steps(costs.training[task_id].steps, during.every))
    for num_answers, flops in costs.answers[: task_id + 1]:
        drawn = min(num_answers, during.examples)
        total.answers += num_points * drawn
        total.scoring_flops += num_points * flops * drawn // num_answers


def _add_scores(total: Totals, sequence: SequencePlan, costs: Costs, store: Store, known: set[str]) -> None:
    """Add the scores of a sequence that are not known."""
    for tasks_seen, keys in enumerate(sequence.score_keys):
        for task_id in sequence.tasks_to_score(tasks_seen):
            key = keys[task_id]
            if key not in known and store.load_score(key) is None:
                num_answers, flops = costs.answers[task_id]
                total.answers += num_answers
                total.scoring_flops += flops
            known.add(key)


def _costs(sequence: SequencePlan, config: RunConfig) -> Costs:
    learner = _skeleton(sequence)
    answers = [_answer_cost(learner, task) for task in learner.stream.tasks]
    training = []
    for task_id in range(len(sequence.tasks)):
        training.append(_task_cost(learner, task_id, config))
    return Costs(training, answers)


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


def _task_cost(learner: Learner, task_id: int, config: RunConfig) -> TaskCost:
    steps = tokens = flops = 0
    with _without_values():
        cost = step_cost(learner, task_id)
    sequence = learner.sequence
    is_trained = sequence.method.run_kind.is_trained(task_id, len(sequence.tasks))
    # outside: what a draw decides must have a value, unlike a weight
    if is_trained and learner.stack.tuning.trains_by_gradient:
        steps = task_steps(learner, task_id)
        tokens, flops = _step_totals(learner, task_id, cost, steps)
    state = sum(weight.numel() * weight.element_size() for weight in learner.weights().values())
    # an annealed task ends in two states, and the optimizer's
    if sequence.training.schedule == "infinite":
        state *= 4
    return TaskCost(steps, tokens, flops, memory_bytes(learner, config), state)


def _step_totals(learner: Learner, task_id: int, cost: StepCost, steps: int) -> tuple[int, int]:
    """(tokens, FLOPs) of a task's steps, each as the mean one of its training set."""
    features = learner.training_set(task_id)
    # the last batch of an epoch is filled up, so that each is whole
    share = learner.sequence.training.global_batch / len(features)
    return round(cost.tokens(features) * share * steps), round(cost.flops(features) * share * steps)


def _answer_cost(learner: Learner, task: Task) -> tuple[int, int]:
    """How many test examples a task has, and the FLOPs of reading each and writing its label."""
    # how a copy is fine-tuned on an end task is the copy's affair, and not counted
    if task.answered is not task:
        return task.size(learner.sequence.split), 0
    examples = learner.family.features_of(task, learner.sequence.split)
    source_tokens, target_tokens = count_tokens(examples)
    with _without_values():
        cost = step_cost(learner, 0)
    return len(examples), 2 * (cost.source * source_tokens + cost.target * target_tokens)


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
    if config.scaling.is_sharded:
        largest = max(sum(p.numel() for p in block.parameters()) for block in blocks_of(model))
        sharded = sharded // config.scaling.fewest_workers + 4 * largest
    return sharded + whole + _activation_bytes(model, sequence, config.scaling.fewest_workers)


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
    for heading in ("states", "steps", "tokens", "FLOPs", "memory", "disk", "GPU h"):
        table.add_column(heading, justify="right", no_wrap=True)
    for total in totals:
        table.add_row(*_cells(total, tflops))
    console.print(table)
    disk = sum(total.disk_bytes for total in totals)
    hours = sum(total.hours(tflops) for total in totals)
    num_sequences = sum(total.sequences for total in totals)
    console.print(
        f"Together {num_sequences} sequences, {shown_bytes(disk)} on disk and {shown_hours(hours)} GPU-hours "
        f"at {tflops:g} TFLOP/s sustained a GPU (--tflops). States that are there, or that a line above trains, count once.",
        highlight=False,
    )
    console.print(
        "Memory is a worker's; memory and hours are estimates, and what a method keeps beside the model is not in them.",
        highlight=False,
    )


def _cells(total: Totals, tflops: float) -> list[str]:
    return [
        total.method,
        f"{total.states}",
        f"{total.steps:,}",
        mean_usage([total.tokens], "tokens"),
        mean_usage([total.flops], "flops"),
        shown_bytes(total.memory_bytes),
        shown_bytes(total.disk_bytes),
        shown_hours(total.hours(tflops)),
    ]


def shown_hours(hours: float) -> str:
    """Two digits of few hours, and whole ones of many."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
