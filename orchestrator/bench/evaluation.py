"""What scoring takes beside a loop as users write it: `orchestrator bench evaluation`.

Both ask the same model the same questions, on the test texts of several tasks in several states. The loop tokenises 64 texts
as they come, pads them to the longest, and lets the model write 50 tokens.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from methods import generator
from orchestrator.bench.learners import measured_learner
from orchestrator.config.experiment import RunConfig
from orchestrator.evaluation.scorers import scorer_of
from orchestrator.evaluation.scores import TaskScore, score_task
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.padding import token_stream
from orchestrator.models.source import quiet_transformers
from orchestrator.planning.planner import plan
from orchestrator.training.learner import Learner
from streams import Task

BATCH = 64
LOOP_TOKENS = 50
# as many as T5 has, where the text is rich enough: so the last layer is as large
VOCABULARY = 32_128
T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8}


@dataclass(frozen=True)
class LoopAnswers:
    """What the loop gave: each whole answer, and its beginning of the length at which scoring stops."""

    whole: list[str]
    beginnings: list[str]


@dataclass(frozen=True)
class Turn:
    """One state and one task: the seconds of the loop and of scoring, and how many predictions are equal."""

    task: str
    loop_s: float
    own_s: float
    num_equal: int
    predictions: tuple[str, ...]


def evaluation_costs(
    console: Console,
    states: int = 2,
    examples: int = 64,
    sizes: Mapping[str, int] | None = None,
    text: str | None = None,
) -> dict[str, Any]:
    """The seconds of both over all tasks and states, their ratio, and whether all predictions are equal.

    The model has the size of T5-small, and random weights; so it seldom ends an answer before the 50 tokens of the loop,
    as a trained one does. The text is that of the folder `text` (default: CL_BENCHMARK_DIR; without it, the embedded stream).
    """
    text = text or os.environ.get("CL_BENCHMARK_DIR")
    stream: dict[str, Any] = {"name": "embedded"}
    if text:
        stream = {"name": "order1", "folder": text}
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stream |= {"max_train": 400, "max_test": examples}
        learner = _learner(stream, sizes or T5_SMALL, Path(folder))
        tasks = learner.stream.tasks
        for number in track(range(states * len(tasks)), "evaluation", console=console, transient=True):
            state, position = divmod(number, len(tasks))
            _draw_weights(learner, state)
            # neither always comes first: what a machine is busy with meanwhile must not favour one of them
            turns.append(_turn(learner, tasks[position], own_first=number % 2 == 1))
    return _result(turns, stream["name"], states)


def _learner(stream: Mapping[str, Any], sizes: Mapping[str, int], folder: Path) -> Learner:
    """An encoder-decoder of random weights, with a tokenizer made from the stream's train texts."""
    from transformers import T5Config, T5ForConditionalGeneration

    entry: dict[str, Any] = {
        "name": "evaluation",
        "model": {"name": "tiny-t5", "max_source": 512, "max_target": LOOP_TOKENS},
        "streams": [dict(stream)],
        "methods": ["ft"],
        "evaluation": {"batch": BATCH},
        "out": str(folder / "out"),
    }
    data = RunConfig.model_validate(entry).streams[0].build()
    texts = []
    for task in data.tasks:
        for example in task.read("train"):
            texts.append(f"{task.prompt(example.text)} {example.label}")
    model = folder / "model"
    vocabulary = _save_tokenizer(texts, model)
    quiet_transformers()
    torch.manual_seed(0)
    shape: dict[str, Any] = {"decoder_start_token_id": 0, "dropout_rate": 0.0, **sizes}
    config = T5Config(vocab_size=vocabulary, **shape)
    T5ForConditionalGeneration(config).save_pretrained(model)
    entry["model"]["name"] = str(model)
    (sequence,) = plan(RunConfig.model_validate(entry))
    return measured_learner(sequence)


def _save_tokenizer(texts: Sequence[str], folder: Path) -> int:
    """Make a byte-pair tokenizer that cuts English about as finely as T5's own. Returns how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@torch.no_grad()
def _draw_weights(learner: Learner, state: int) -> None:
    """Weights of which each state has its own, so large that the answer depends on the text."""
    module: Any = learner.family.module
    for name, weight in module.named_parameters():
        if weight.ndim < 2:
            continue
        deviation = weight.shape[-1] ** -0.5
        # T5 leaves it to the queries to keep attention even. Where it is not, rounding grows from layer to layer, and answers
        # would differ by nothing but the order of a sum.
        if ".q." in name:
            deviation *= module.config.d_kv**-0.5
        weight.copy_(deviation * torch.randn(weight.shape, generator=generator(state, name)))


def _turn(learner: Learner, task: Task, own_first: bool) -> Turn:
    """Ask both, and hold their answers against each other."""
    order = ["loop", "own"]
    if own_first:
        order.reverse()
    # on a CPU the process's own time, in which no other one's share is
    clock = time.perf_counter if learner.parallel.device.type == "cuda" else time.process_time
    seconds = {}
    for which in order:
        started = clock()
        if which == "loop":
            answers = plain_loop(learner, task)
        else:
            score = score_task(learner.scored_model(), task, "test", BATCH)
        seconds[which] = clock() - started
    predictions = tuple(prediction.prediction for prediction in score.predictions)
    return Turn(task.name, seconds["loop"], seconds["own"], num_equal(task, score, answers), predictions)


def plain_loop(learner: Learner, task: Task) -> LoopAnswers:
    """The loop: examples as they come, tokenised for each state, 50 tokens for each answer."""
    family = learner.family
    assert isinstance(family, EncoderDecoder)
    examples = task.read("test")
    limit = family.max_new_tokens(task)
    whole: list[str] = []
    beginnings: list[str] = []
    family.module.eval()
    for first in range(0, len(examples), BATCH):
        sources = family.encode_texts(task, examples[first : first + BATCH])
        source = token_stream(sources, family.pad).to(learner.parallel.device)
        written = family.module.generate(  # type: ignore[operator]
            input_ids=source.ids, attention_mask=source.mask, max_new_tokens=LOOP_TOKENS, do_sample=False
        )
        whole += family.tokenizer.batch_decode(written, skip_special_tokens=True)
        # the first token is the one that each answer starts from
        beginnings += family.tokenizer.batch_decode(written[:, : limit + 1], skip_special_tokens=True)
    return LoopAnswers(whole, beginnings)


def num_equal(task: Task, score: TaskScore, answers: LoopAnswers) -> int:
    """The predictions that are the loop's as far as scoring reads them, and right where the loop's whole answer is."""
    scorer = scorer_of(task)
    count = 0
    for prediction, whole, beginning in zip(score.predictions, answers.whole, answers.beginnings, strict=True):
        is_right = scorer.equals(whole, prediction.target)
        count += prediction.prediction == beginning and prediction.correct == is_right
    return count


def _result(turns: Sequence[Turn], text: str, states: int) -> dict[str, Any]:
    tasks: dict[str, dict[str, float]] = {}
    answers: set[str] = set()
    equal = 0
    asked = 0
    for turn in turns:
        row = tasks.setdefault(turn.task, {"loop_s": 0.0, "own_s": 0.0})
        row["loop_s"] += turn.loop_s
        row["own_s"] += turn.own_s
        equal += turn.num_equal
        asked += len(turn.predictions)
        answers.update(turn.predictions)
    for row in tasks.values():
        row["ratio"] = round(row["loop_s"] / row["own_s"], 2)
    loop_s = sum(turn.loop_s for turn in turns)
    own_s = sum(turn.own_s for turn in turns)
    return {
        "bench": "evaluation",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "text": text,
        "states": states,
        "tasks": tasks,
        "answers": asked,
        "distinct_answers": len(answers),
        "equal_answers": equal,
        "equal_predictions": equal == asked,
        "loop_s": round(loop_s, 2),
        "own_s": round(own_s, 2),
        "ratio": round(loop_s / own_s, 2),
    }


def print_evaluation_costs(result: Mapping[str, Any], console: Console) -> None:
    """Print a line for each task."""
    title = f"scoring {result['states']} states on {result['text']} ({result['device']})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for heading in ("a loop", "orchestrator", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in result["tasks"].items():
        table.add_row(name, f"{row['loop_s']:.1f} s", f"{row['own_s']:.1f} s", f"{row['ratio']:.2f} x")
    table.add_section()
    table.add_row("all", f"{result['loop_s']:.1f} s", f"{result['own_s']:.1f} s", f"{result['ratio']:.2f} x")
    console.print(table)
    same = "equal" if result["equal_predictions"] else "NOT EQUAL"
    line = f"{result['equal_answers']} of {result['answers']} predictions are the loop's: {same}"
    console.print(line, highlight=False)
