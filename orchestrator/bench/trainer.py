"""What a step of plain fine-tuning costs beside one of transformers' Trainer: `orchestrator bench trainer-step`.

Both train the same model on the same texts, with the same global batch, micro-batch, clipping and fused AdamW.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.bench.learners import measured_learner
from orchestrator.bench.steps import LLAMA, T5_SMALL, wait_for_device
from orchestrator.config.experiment import RunConfig
from orchestrator.models.family import Feature
from orchestrator.models.source import quiet_transformers
from orchestrator.planning.planner import plan
from orchestrator.training.learner import Learner
from orchestrator.training.optimizer import make_optimizer
from orchestrator.training.step import make_micro_batches, train_step

GLOBAL_BATCH = 8
MICRO_BATCH = 2
LONGEST = 128
STEPS = 2  # of a turn


@dataclass(frozen=True)
class Case:
    """A model, and whether all texts have one length or lengths as real text has."""

    model: str
    builtin: str
    overrides: Mapping[str, Any]
    varied: bool


CASES = (
    Case("tiny-t5", "tiny-t5", {}, varied=False),
    Case("tiny-t5", "tiny-t5", {}, varied=True),
    Case("t5 (512 wide)", "tiny-t5", T5_SMALL, varied=False),
    Case("t5 (512 wide)", "tiny-t5", T5_SMALL, varied=True),
    Case("llama (512 wide)", "tiny-llama", LLAMA | {"max_position_embeddings": 512}, varied=True),
)


def trainer_step(console: Console, rounds: int = 5, cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """The time of our step as a ratio to the Trainer's in the same round: medians over the rounds, which alternate."""
    quiet_transformers()
    measured = []
    for case in cases:
        measured.append(_measure(case, rounds, console))
    return {"bench": "trainer-step", "cases": measured}


def _measure(case: Case, rounds: int, console: Console) -> dict[str, Any]:
    features = _features(case)
    ratios = []
    trainer_seconds = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ours = _Ours(case, features, folder)
        theirs = _Theirs(case, features, folder)
        # what is allocated once is no step's
        ours.step_seconds(1)
        theirs.step_seconds(1)
        for number in track(range(rounds), f"{case.model}, {_lengths(case)}", console=console, transient=True):
            turns: list[Any] = [ours, theirs]
            # none shall always come after the other
            if number % 2:
                turns.reverse()
            seconds = {turn: turn.step_seconds(STEPS) for turn in turns}
            ratios.append(seconds[ours] / seconds[theirs])
            trainer_seconds.append(seconds[theirs])
    return {
        "model": case.model,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "lengths": _lengths(case),
        "trainer_ms": round(1000 * median(trainer_seconds), 1),
        "ratio": round(median(ratios), 3),
        "padding_trainer": round(theirs.padding, 3),
        "padding": round(ours.padding, 3),
    }


def _lengths(case: Case) -> str:
    return "varied" if case.varied else "equal"


def _features(case: Case) -> list[Feature]:
    """Texts of random tokens; varied lengths are log-normal, as those of reviews and news are."""
    rng = torch.Generator().manual_seed(0)
    features: list[Feature] = []
    for _ in range(8 * GLOBAL_BATCH):
        length = LONGEST
        if case.varied:
            drawn = math.exp(math.log(LONGEST / 3) + 0.7 * float(torch.randn((), generator=rng)))
            length = min(LONGEST, max(8, round(drawn)))
        # the first ids are special tokens
        source = torch.randint(8, 200, (length,), generator=rng).tolist()
        target = torch.randint(8, 200, (4,), generator=rng).tolist()
        features.append({"source": source, "target": target, "class_index": 0})
    return features


def _learner(case: Case, folder: str) -> Learner:
    has_gpu = torch.cuda.is_available()
    config = RunConfig.model_validate(
        {
            "name": "trainer-step",
            "model": {
                "name": case.builtin,
                "overrides": dict(case.overrides),
                "precision": "bf16" if has_gpu else "float32",
            },
            "streams": [{"name": "embedded", "first": 1, "max_train": 16, "max_test": 2}],
            "methods": ["ft"],
            "training": {"global_batch": GLOBAL_BATCH, "micro_batch": MICRO_BATCH},
            "out": folder,
        }
    )
    (sequence,) = plan(config)
    learner = measured_learner(sequence)
    learner.family.module.train()
    return learner


class _Ours:
    """Our own steps. `padding` is the share of what was read that was padding."""

    def __init__(self, case: Case, features: Sequence[Feature], folder: str) -> None:
        self.learner = _learner(case, folder)
        model = self.learner.family.module
        self.optimizer = make_optimizer(model, [], self.learner.sequence.training)
        self.batches = _without_end(features)
        self.steps = 0
        self.read = _Read()

    @property
    def padding(self) -> float:
        return self.read.padding

    def step_seconds(self, steps: int) -> float:
        """Seconds a step."""
        wait_for_device()
        started = time.perf_counter()
        for _ in range(steps):
            self.steps += 1
            made = make_micro_batches(self.learner, next(self.batches))
            train_step(self.learner, self.learner.family.module, self.optimizer, made, 0, self.steps)
            for batch in made.batches:
                self.read.add(batch.source.mask)
        wait_for_device()
        return (time.perf_counter() - started) / steps


class _Theirs:
    """The Trainer's steps."""

    def __init__(self, case: Case, features: Sequence[Feature], folder: str) -> None:
        self.learner = _learner(case, folder)
        self.features = features
        self.folder = folder
        self.read = _Read()

    @property
    def padding(self) -> float:
        return self.read.padding

    def step_seconds(self, steps: int) -> float:
        """Seconds a step, of the steps after the first one of a run."""
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        ends: list[float] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *arguments: Any, **more: Any) -> None:
                wait_for_device()
                ends.append(time.perf_counter())

        has_gpu = torch.cuda.is_available()
        arguments = TrainingArguments(
            output_dir=self.folder,
            max_steps=steps + 1,
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=GLOBAL_BATCH // MICRO_BATCH,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            bf16=has_gpu,
            use_cpu=not has_gpu,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(
            model=self.learner.family.module,
            args=arguments,
            train_dataset=self.features,
            data_collator=self._collate,
            callbacks=[Clock()],
        )
        # it prints a line at the end of each run
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return (ends[-1] - ends[0]) / steps

    def _collate(self, features: list[Feature]) -> dict[str, Any]:
        """A micro-batch as users make it: padded to its longest text."""
        batch = self.learner.family.collate(features)
        self.read.add(batch.source.mask)
        return {"input_ids": batch.source.ids, "attention_mask": batch.source.mask, "labels": batch.labels}


class _Read:
    """How many tokens were read, and how many of them were real."""

    def __init__(self) -> None:
        self.real = 0
        self.all = 0

    def add(self, mask: torch.Tensor) -> None:
        """Count a micro-batch."""
        self.real += int(mask.sum())
        self.all += mask.numel()

    @property
    def padding(self) -> float:
        """The share that was padding."""
        return 1 - self.real / self.all


def _without_end(features: Sequence[Feature]) -> Iterator[list[Feature]]:
    while True:
        for start in range(0, len(features), GLOBAL_BATCH):
            yield list(features[start : start + GLOBAL_BATCH])


def print_trainer_step(result: Mapping[str, Any], console: Console) -> None:
    """Print a line for each case."""
    title = "a step of fine-tuning beside transformers' Trainer's"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "lengths"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Trainer", "ours", "padding", "ours"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in result["cases"]:
        table.add_row(
            case["model"],
            case["lengths"],
            f"{case['trainer_ms']:.0f} ms",
            f"{case['ratio']:.2f} x",
            f"{case['padding_trainer']:.0%}",
            f"{case['padding']:.0%}",
        )
    console.print(table)
