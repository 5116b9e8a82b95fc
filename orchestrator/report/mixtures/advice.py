"""The best share of a mixture for a target, with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from orchestrator.planning.experiment import Experiment
from orchestrator.report.mixtures.law import best_ratio, fit
from orchestrator.report.mixtures.points import mixture_points

# Below, a law predicts runs that it has not seen too badly to be followed
TRUSTED_R2 = 0.9


def advise(
    experiments: Sequence[Experiment], task: str, general: str | None, most: float, tokens: float | None
) -> dict[str, Any]:
    """The laws of a task's loss and of a general one's, and the share of the task's own examples that they say is best.

    Raises ValueError where the runs cannot tell.
    """
    points = mixture_points(experiments, task, task)
    law = fit(points)
    amount = tokens or max(point.tokens for point in points)
    ratios = sorted(point.ratio for point in points)
    general_law = None
    if general is not None:
        general_law = fit(mixture_points(experiments, task, general))
    best = best_ratio(law, amount, (ratios[0], ratios[-1]), general_law, most)
    advice: dict[str, Any] = {
        "task": task,
        "tokens": amount,
        "ratio": best,
        "loss": round(float(law.loss(amount, best)), 4),
        "tried": [ratios[0], ratios[-1]],
        "law": asdict(law),
        "general": general,
        "general_loss": None,
        "general_law": None,
    }
    if general_law is not None:
        advice["general_loss"] = round(float(general_law.loss(amount, 1 - best)), 4)
        advice["general_law"] = asdict(general_law)
    return advice


def print_advice(advice: dict[str, Any], console: Console) -> None:
    """Print the share, the losses that it promises, and how well the laws predict what they have not seen."""
    share = f"best share of {advice['task']}: {advice['ratio']:.2f} after {advice['tokens']:.3g} tokens"
    line = f"{share}, with a loss of {advice['loss']:g}"
    if advice["general"]:
        line += f" and of {advice['general_loss']:g} on {advice['general']}"
    console.print(line, highlight=False)
    low, high = advice["tried"]
    console.print(
        f"shares from {low:g} to {high:g} were tried; outside of them nothing is said", style="dim", highlight=False
    )
    for name, law in ((advice["task"], advice["law"]), (advice["general"], advice["general_law"])):
        if law is None:
            continue
        r2 = law["held_out_r2"]
        line = f"{name}: R^2 of {r2:.2f} on runs that were left out, of {law['num_points']}"
        style = "dim"
        if r2 < TRUSTED_R2:
            line += ": the law predicts badly; more runs, or more seeds, are needed"
            style = "yellow"
        console.print(line, style=style, highlight=False)
