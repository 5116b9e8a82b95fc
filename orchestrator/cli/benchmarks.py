"""`orchestrator bench`: measures what the project claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestrator.cli.app import AsJson, app, make_console

# So many rounds or examples that nobody waits for them
MOST = 10**9

bench = typer.Typer(help="Measure what the project claims.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def _show(result: dict[str, Any], print_table: Callable[[dict[str, Any], Console], None], as_json: bool) -> None:
    """Progress has gone to stderr; the table does too where stdout is for the JSON object alone."""
    print_table(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))


@bench.command("search-reuse")
def bench_search_reuse(as_json: AsJson = False) -> None:
    """How many tasks a search trains when its trials share their common beginnings, against training each alone."""
    from orchestrator.bench import print_search_reuse, search_reuse

    result = search_reuse(make_console(stderr=True))
    _show(result, print_search_reuse, as_json)
    # the claim is less time for the same scores: a difference refutes it, as a failing test would
    if not result["equal_results"]:
        raise typer.Exit(1)


@bench.command("methods")
def bench_methods(
    model: Annotated[str, typer.Option(help="A built-in model, a folder, or a hub id.")] = "tiny-t5",
    rounds: Annotated[int, typer.Option(min=1, max=MOST, help="Medians are over so many rounds.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What each method costs beside fine-tuning: time, checkpoint and memory."""
    from orchestrator.bench import method_costs, print_method_costs

    result = {"methods": method_costs(make_console(stderr=True), model, rounds)}
    _show(result, lambda result, console: print_method_costs(result["methods"], console), as_json)


@bench.command("migu-step")
def bench_migu_step(
    rounds: Annotated[int, typer.Option(min=2, max=MOST, help="Steps of each form; the first is not counted.")] = 15,
    as_json: AsJson = False,
) -> None:
    """What a step of MIGU takes beside fine-tuning's: as released, masking gradients, and never computing them."""
    from orchestrator.bench import migu_step, print_migu_step

    result = migu_step(make_console(stderr=True), rounds)
    _show(result, print_migu_step, as_json)


@bench.command("fused-trials")
def bench_fused_trials(
    trials: Annotated[int, typer.Option(min=2, max=MOST, help="So many learning rates.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=MOST, help="Turns of each way; medians are over them.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What trials of LoRA take that are trained in one pass over one frozen model, beside training each alone."""
    from orchestrator.bench import fused_trials, print_fused_trials

    result = fused_trials(make_console(stderr=True), trials, rounds)
    _show(result, print_fused_trials, as_json)
    # the claim is less time for the same weights
    if not result["equal_weights"]:
        raise typer.Exit(1)


@bench.command("trainer-step")
def bench_trainer_step(
    rounds: Annotated[int, typer.Option(min=1, max=MOST, help="Turns of each; medians are over them.")] = 5,
    as_json: AsJson = False,
) -> None:
    """What a step of plain fine-tuning takes beside one of transformers' Trainer, on texts of equal and of varied length."""
    from orchestrator.bench import print_trainer_step, trainer_step

    result = trainer_step(make_console(stderr=True), rounds)
    _show(result, print_trainer_step, as_json)


@bench.command("checkpoints")
def bench_checkpoints(
    model: Annotated[
        str, typer.Option(help="t5-small: random weights of that size; or a built-in model, a folder, a hub id.")
    ] = "t5-small",
    rounds: Annotated[int, typer.Option(min=1, max=MOST, help="Medians are over so many rounds.")] = 1,
    as_json: AsJson = False,
) -> None:
    """What states cost: seconds that training waits for them, and bytes that each setting of `checkpoints` leaves."""
    from orchestrator.bench import checkpoint_costs, print_checkpoint_costs

    result = checkpoint_costs(make_console(stderr=True), model, rounds)
    _show(result, print_checkpoint_costs, as_json)


@bench.command("evaluation")
def bench_evaluation(
    states: Annotated[int, typer.Option(min=1, max=MOST, help="So many states are scored.")] = 2,
    examples: Annotated[int, typer.Option(min=1, max=MOST, help="Test examples of each task.")] = 64,
    as_json: AsJson = False,
) -> None:
    """What scoring takes beside a loop that tokenises each time, sorts nothing, and writes 50 tokens for each answer."""
    from orchestrator.bench import evaluation_costs, print_evaluation_costs

    result = evaluation_costs(make_console(stderr=True), states, examples)
    _show(result, print_evaluation_costs, as_json)
    # the claim is less time for the same answers
    if not result["equal_predictions"]:
        raise typer.Exit(1)


@bench.command("corpus")
def bench_corpus(
    mb: Annotated[int, typer.Option(min=1, max=MOST, help="Megabytes of text.")] = 200,
    as_json: AsJson = False,
) -> None:
    """What a large corpus takes: memory, and tokens a second while it is packed and trained on."""
    from orchestrator.bench import corpus_costs, print_corpus_costs
    from orchestrator.bench.corpus import MOST_MB

    result = corpus_costs(make_console(stderr=True), mb)
    _show(result, print_corpus_costs, as_json)
    # the claim is that memory does not grow with the corpus
    if result["peak_without_mapped_mb"] > MOST_MB:
        raise typer.Exit(1)


@bench.command("scale")
def bench_scale(
    sequences: Annotated[int, typer.Option(min=1, max=MOST, help="Sequences of the experiment.")] = 1000,
    tasks: Annotated[int, typer.Option(min=1, max=MOST, help="Tasks of each.")] = 15,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Steps of each task.")] = 100,
    long_steps: Annotated[
        int, typer.Option(min=0, max=MOST, help="Steps of one long sequence beside them; 0: none.")
    ] = 200_000,
    as_json: AsJson = False,
) -> None:
    """What records take where there are many: journals, their copy in MLflow, the report. Nothing is trained.

    By default about half an hour, nearly all of it the first copy.
    """
    from orchestrator.bench import Size, print_scale, scale

    result = scale(make_console(stderr=True), Size(sequences, tasks, steps), long_steps)
    _show(result, print_scale, as_json)
    # the claim is that what was copied is not sent again
    if result["copy_again_writes"]:
        raise typer.Exit(1)


@bench.command("chaos")
def bench_chaos(
    rounds: Annotated[int, typer.Option(min=1, max=MOST, help="So many runs are struck, each once.")] = 17,
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Chooses kinds and moments.")] = 0,
    kinds: Annotated[str, typer.Option(help="Only these kinds of faults, such as kill-worker,interrupt.")] = "",
    out: Annotated[Path | None, typer.Option(help="A folder that keeps all runs. Default: none is kept.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a run loses by a fault at a random moment: processes that are killed or stand still, damaged files, a full disk.

    Each round is a real run on a Ray cluster of its own, of about half a minute; its command is repeated until it succeeds.
    """
    from orchestrator.bench import chaos, check_kinds, has_damage, print_chaos

    chosen = check_kinds(kind.strip() for kind in kinds.split(",") if kind.strip())
    result = chaos(make_console(stderr=True), rounds, seed, chosen, out)
    _show(result, print_chaos, as_json)
    # the claim is that nothing is lost, whatever happens
    if has_damage(result):
        raise typer.Exit(1)
