"""`orchestrator bench`: measures what the project claims."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, app, make_console

bench = typer.Typer(help="Measure what the project claims.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("search-reuse")
def bench_search_reuse(as_json: AsJson = False) -> None:
    """How many tasks a search trains when its trials share their common beginnings, against training each alone."""
    from orchestrator.bench import print_search_reuse, search_reuse

    # progress always goes to stderr; the table too where stdout is for the JSON object alone
    result = search_reuse(make_console(stderr=True))
    print_search_reuse(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    # the claim is less time for the same scores: a difference refutes it, as a failing test would
    if not result["equal_results"]:
        raise typer.Exit(1)


@bench.command("methods")
def bench_methods(
    model: Annotated[str, typer.Option(help="A built-in model, a folder, or a hub id.")] = "tiny-t5",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are over so many rounds.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What each method costs beside fine-tuning: time, checkpoint and memory."""
    from orchestrator.bench import method_costs, print_method_costs

    rows = method_costs(make_console(stderr=True), model, rounds)
    print_method_costs(rows, make_console(stderr=as_json))
    if as_json:
        print(json.dumps({"methods": rows}))


@bench.command("migu-step")
def bench_migu_step(
    rounds: Annotated[int, typer.Option(min=2, help="Steps of each form; the first is not counted.")] = 15,
    as_json: AsJson = False,
) -> None:
    """What a step of MIGU takes beside fine-tuning's: as released, masking gradients, and never computing them."""
    from orchestrator.bench import migu_step, print_migu_step

    result = migu_step(make_console(stderr=True), rounds)
    print_migu_step(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))


@bench.command("trainer-step")
def bench_trainer_step(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each; medians are over them.")] = 5,
    as_json: AsJson = False,
) -> None:
    """What a step of plain fine-tuning takes beside one of transformers' Trainer, on texts of equal and of varied length."""
    from orchestrator.bench import print_trainer_step, trainer_step

    result = trainer_step(make_console(stderr=True), rounds)
    print_trainer_step(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))


@bench.command("checkpoints")
def bench_checkpoints(
    model: Annotated[
        str, typer.Option(help="t5-small: random weights of that size; or a built-in model, a folder, a hub id.")
    ] = "t5-small",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are over so many rounds.")] = 1,
    as_json: AsJson = False,
) -> None:
    """What states cost: seconds that training waits for them, and bytes that each setting of `checkpoints` leaves."""
    from orchestrator.bench import checkpoint_costs, print_checkpoint_costs

    result = checkpoint_costs(make_console(stderr=True), model, rounds)
    print_checkpoint_costs(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))


@bench.command("evaluation")
def bench_evaluation(
    states: Annotated[int, typer.Option(min=1, help="So many states are scored.")] = 2,
    examples: Annotated[int, typer.Option(min=1, help="Test examples of each task.")] = 64,
    as_json: AsJson = False,
) -> None:
    """What scoring takes beside a loop that tokenises each time, sorts nothing, and writes 50 tokens for each answer."""
    from orchestrator.bench import evaluation_costs, print_evaluation_costs

    result = evaluation_costs(make_console(stderr=True), states, examples)
    print_evaluation_costs(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    # the claim is less time for the same answers
    if not result["equal_predictions"]:
        raise typer.Exit(1)


@bench.command("scale")
def bench_scale(
    sequences: Annotated[int, typer.Option(min=1, help="Sequences of the experiment.")] = 1000,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each.")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each task.")] = 100,
    long_steps: Annotated[int, typer.Option(min=0, help="Steps of one long sequence beside them; 0: none.")] = 200_000,
    as_json: AsJson = False,
) -> None:
    """What records take where there are many: journals, their copy in MLflow, the report. Nothing is trained.

    By default about half an hour, nearly all of it the first copy.
    """
    from orchestrator.bench import Size, print_scale, scale

    result = scale(make_console(stderr=True), Size(sequences, tasks, steps), long_steps)
    print_scale(result, make_console(stderr=as_json))
    if as_json:
        print(json.dumps(result))
    # the claim is that what was copied is not sent again
    if result["copy_again_writes"]:
        raise typer.Exit(1)
