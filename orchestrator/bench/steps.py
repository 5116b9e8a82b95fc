"""What a step of MIGU costs beside plain fine-tuning's: `orchestrator bench migu-step`.

Each form of it takes the same steps as fine-tuning, in turns: as released, masking gradients after they were computed, and
row-sparse, which never computes those that would be masked.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.bench.learners import measured_learner
from orchestrator.config.experiment import RunConfig
from orchestrator.models.family import Feature
from orchestrator.planning.planner import plan
from orchestrator.training.optimizer import make_optimizer
from orchestrator.training.step import make_micro_batches, train_step

# By form: MIGU's settings; None is plain fine-tuning
FORMS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "released": {"released": True, "count_padding": True},
    "masked": {},
    "row_sparse": {},
}


@dataclass(frozen=True)
class Case:
    """A model, by a built-in one with other sizes, and the batch of random tokens that its steps read."""

    model: str
    builtin: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    examples: int = 8
    source_tokens: int = 256
    target_tokens: int = 8


T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8}
_T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 16}
_HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8}
LLAMA = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, **_HEADS}
_LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 1024,
}
CPU_CASES = (
    Case("t5 (512 wide)", "tiny-t5", T5_SMALL),
    Case("llama (512 wide)", "tiny-llama", LLAMA | {"max_position_embeddings": 512}),
    Case("tiny-t5", "tiny-t5", {}, examples=16, source_tokens=48),
)
GPU_CASES = (
    Case("t5-large", "tiny-t5", _T5_LARGE, source_tokens=512),
    Case("llama (1.2 B)", "tiny-llama", _LLAMA_1B, source_tokens=512),
)


class Form:
    """One form of MIGU, or fine-tuning, on a model of its own."""

    def __init__(self, case: Case, form: str, out: str) -> None:
        settings = FORMS[form]
        plugins = []
        if settings is not None:
            plugins.append({"name": "migu", "mask_first_task": True, "diagnostics": False, **settings})
        has_gpu = torch.cuda.is_available()
        config = RunConfig.model_validate(
            {
                "name": "migu-step",
                "model": {
                    "name": case.builtin,
                    "overrides": dict(case.overrides),
                    "max_source": case.source_tokens,
                    "max_target": case.target_tokens,
                    "precision": "bf16" if has_gpu else "float32",
                },
                "streams": [{"name": "embedded", "first": 1, "max_train": 16, "max_test": 2}],
                "methods": [{"tuning": "full", "plugins": plugins}],
                "training": {"global_batch": case.examples},
                "out": out,
            }
        )
        (sequence,) = plan(config)
        self.learner = measured_learner(sequence)
        self.learner.family.at_task(0, len(self.learner.stream.labels_until(1)))
        for _, part in self.learner.stack.parts[1:]:
            # as beside another method that looks at gradients, which then have to be whole
            part.context = replace(part.context, alone_with_gradients=form == "row_sparse")
        model = self.learner.family.module.train()
        self.learner.stack.before_task(model, 0, [])
        self.optimizer = make_optimizer(model, self.learner.family.head(), sequence.training)
        self.features = _random_features(case, len(self.learner.family.tokenizer))
        self.steps = 0

    def step_seconds(self) -> float:
        """Take a step; the seconds that it took."""
        self.steps += 1
        wait_for_device()
        started = time.perf_counter()
        made = make_micro_batches(self.learner, self.features)
        train_step(self.learner, self.learner.family.module, self.optimizer, made, 0, self.steps)
        wait_for_device()
        return time.perf_counter() - started

    def peak_bytes(self) -> int | None:
        """The memory that a step needs at most beyond what lies there between steps; None where there is no GPU to say."""
        if not torch.cuda.is_available():
            return None
        self.optimizer.zero_grad()
        wait_for_device()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step_seconds()
        return torch.cuda.max_memory_allocated() - before


def wait_for_device() -> None:
    """Until the GPU has done what it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _random_features(case: Case, vocabulary: int) -> list[Feature]:
    rng = torch.Generator().manual_seed(0)
    features: list[Feature] = []
    for _ in range(case.examples):
        # the first ids are special tokens
        source = torch.randint(8, vocabulary, (case.source_tokens,), generator=rng).tolist()
        target = torch.randint(8, vocabulary, (case.target_tokens,), generator=rng).tolist()
        features.append({"source": source, "target": target, "class_index": 0})
    return features


def migu_step(console: Console, rounds: int = 15, cases: Sequence[Case] | None = None) -> dict[str, Any]:
    """The time of a step of each form as a ratio to fine-tuning's in the same round: medians over the rounds but the first."""
    if cases is None:
        cases = GPU_CASES if torch.cuda.is_available() else CPU_CASES
    measured = []
    for case in cases:
        measured.append(_measure(case, rounds, console))
    return {"bench": "migu-step", "cases": measured}


def _measure(case: Case, rounds: int, console: Console) -> dict[str, Any]:
    ratios: dict[str, list[float]] = defaultdict(list)
    dense_seconds = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        forms = {form: Form(case, form, folder) for form in FORMS}
        for number in track(range(rounds), case.model, console=console, transient=True):
            seconds = _one_round(forms, reverse=number % 2 == 1)
            # what is allocated and compiled once is no step's
            if number == 0:
                continue
            dense_seconds.append(seconds["dense"])
            for form in forms:
                ratios[form].append(seconds[form] / seconds["dense"])
        peaks = {form: forms[form].peak_bytes() for form in ("dense", "row_sparse")}
    memory = None
    if peaks["dense"] and peaks["row_sparse"]:
        memory = round(peaks["row_sparse"] / peaks["dense"], 3)
    return {
        "model": case.model,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dense_ms": round(1000 * median(dense_seconds), 2),
        "ratio_released": round(median(ratios["released"]), 3),
        "ratio_masked": round(median(ratios["masked"]), 3),
        "ratio_row_sparse": round(median(ratios["row_sparse"]), 3),
        "peak_memory_ratio": memory,
    }


def _one_round(forms: Mapping[str, Form], reverse: bool) -> dict[str, float]:
    """The seconds of a step of each form, the last one first where `reverse`: none shall always come after the same one."""
    names = list(forms)
    if reverse:
        names.reverse()
    seconds = {}
    for name in names:
        seconds[name] = forms[name].step_seconds()
    return seconds


def print_migu_step(result: Mapping[str, Any], console: Console) -> None:
    """Print a line for each model."""
    table = Table(title="a step beside fine-tuning's", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("fine-tuning", "released", "masked", "row-sparse", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in result["cases"]:
        table.add_row(
            case["model"],
            f"{case['dense_ms']:.0f} ms",
            _shown(case["ratio_released"]),
            _shown(case["ratio_masked"]),
            _shown(case["ratio_row_sparse"]),
            _shown(case["peak_memory_ratio"]),
        )
    console.print(table)


def _shown(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f} x"
