"""The results of benchmarks of base abilities, by lm-evaluation-harness: computed once and cached, as scores are."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from orchestrator.config.running import EvaluationConfig
from orchestrator.evaluation.abilities.memories import measure_memories
from orchestrator.evaluation.scores import ScoredModel, evaluating
from orchestrator.planning.probes import MEMORIES, harness_tasks, memories_of
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ProbeComputed

# Of the numbers that a benchmark gives, the one that is shown: the first of these that it has, else its first
PREFERRED = ("acc_norm", "acc", "exact_match", "pass@1", "f1")
# shares, which are shown in %, as scores are
SHARES = (*PREFERRED, "rouge1", "rougeL")


def missing_probes(sequence: SequencePlan, tasks_seen: int, store: Store) -> list[int]:
    """The benchmarks, counted behind the tasks, that the state after `tasks_seen` tasks is to take, and nobody has."""
    missing = []
    for index, key in enumerate(sequence.probe_keys_of(tasks_seen)):
        if store.load_score(key) is None:
            missing.append(len(sequence.tasks) + index)
    return missing


def compute_probe(model: ScoredModel, sequence: SequencePlan, store: Store, tasks_seen: int, column: int) -> None:
    """Have the state that `model` holds take a benchmark, and keep what it gives. `column` counts behind the tasks."""
    index = column - len(sequence.tasks)
    # a method that is told its task is told the last one that it was trained on
    position = sequence.method.run_kind.task_position(max(tasks_seen - 1, 0))
    model.stack.before_scoring(model.family.module, position)
    started = time.monotonic()
    name = sequence.probe_names[index]
    if name == MEMORIES:
        memories = memories_of(sequence.stream)
        assert memories is not None, "the plan has the column for it"
        found = measure_memories(model, memories, sequence.evaluation.batch)
    else:
        found = _ask_harness(model, sequence.evaluation, name)
    if not model.keeps_scores:
        return
    found["seconds"] = round(time.monotonic() - started, 3)
    store.save_score(sequence.probe_keys_of(tasks_seen)[index], found)


def probe_events(sequence: SequencePlan, tasks_seen: int, store: Store) -> Iterator[ProbeComputed]:
    """The events of the benchmarks that one state is to take, all of which are cached."""
    for name, key in zip(sequence.probe_names, sequence.probe_keys_of(tasks_seen), strict=False):
        record = store.load_score(key)
        assert record is not None
        yield ProbeComputed(tasks_seen=tasks_seen, probe=name, key=key, **record)


def _ask_harness(model: ScoredModel, evaluation: EvaluationConfig, name: str) -> dict[str, Any]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    probes = evaluation.probes
    assert probes is not None
    family = model.family
    backend = "seq2seq" if family.source.kind == "encoder-decoder" else "causal"
    with evaluating(family), model.precision(), _generators_kept(), _quiet():
        harness_model = HFLM(
            pretrained=family.module, tokenizer=family.tokenizer, backend=backend, batch_size=evaluation.batch
        )
        answer = lm_eval.simple_evaluate(
            model=harness_model,
            tasks=[name],
            task_manager=harness_tasks(probes),
            num_fewshot=probes.few_shot,
            limit=probes.limit,
            apply_chat_template=family.config.input == "chat",
            log_samples=False,
            bootstrap_iters=0,
        )
    assert answer is not None, "only the first of several processes of the harness's own has an answer"
    return _record(answer, name)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Give the global generators back as they were: the harness seeds all of them, and training may go on in this process."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        # those of GPUs too, where there are any
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's progress bars and remarks from the screen."""
    harness = logging.getLogger("lm_eval")
    level = harness.level
    harness.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        harness.setLevel(level)


def _record(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is kept of the harness's answer: all numbers of the benchmark, and the one that is shown."""
    numbers: dict[str, float] = {}
    for key, value in answer["results"][name].items():
        metric, _, answer_filter = key.partition(",")
        # "alias", the number of samples, and deviations that were not computed
        if not answer_filter or isinstance(value, str) or metric.endswith("_stderr"):
            continue
        shown = metric if answer_filter == "none" else f"{metric} ({answer_filter})"
        numbers[shown] = round(100 * float(value), 6) if metric in SHARES else float(value)
    metric = main_metric(numbers)
    better = "higher"
    direction = answer.get("higher_is_better", {}).get(name, {})
    if direction.get(metric.partition(" (")[0]) is False:
        better = "lower"
    n = answer["n-samples"].get(name, {}).get("effective", 0)
    return {"metric": metric, "score": numbers[metric], "better": better, "n": n, "numbers": numbers}


def main_metric(numbers: Mapping[str, float]) -> str:
    """The number of a benchmark that is shown (see `PREFERRED`)."""
    for preferred in PREFERRED:
        for name in numbers:
            if name.partition(" (")[0] == preferred:
                return name
    return next(iter(numbers))
