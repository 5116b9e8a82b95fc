"""What is left of facts that were seen a few times in a stream's first task (`streams.scenarios.memories`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from orchestrator.evaluation.scorers import SCORERS
from orchestrator.evaluation.scores import ScoredModel, evaluating, losses_of
from streams.scenarios.memories import Fact, Memories, as_example, memory_task


def measure_memories(model: ScoredModel, memories: Memories, batch_size: int) -> dict[str, Any]:
    """Recall and recognition in %, over all facts and by the number of exposures, as a benchmark's results are kept.

    `recall`: the greedy answer is the fact's, as `exact-match` compares. `recognition`: the fact's answer is likelier than its
    foil's; a model that knows nothing has 50.
    """
    facts = memories.all_facts()
    with torch.no_grad(), evaluating(model.family), model.precision():
        recalled, recognised = _measured(model, facts, batch_size)
    numbers: dict[str, float] = {"recall": _share(recalled), "recognition": _share(recognised)}
    for exposures in memories.exposures:
        chosen = [index for index, fact in enumerate(facts) if fact.exposures == exposures]
        numbers[f"recall ({exposures})"] = _share([recalled[index] for index in chosen])
        numbers[f"recognition ({exposures})"] = _share([recognised[index] for index in chosen])
    return {"metric": "recall", "score": numbers["recall"], "better": "higher", "n": len(facts), "numbers": numbers}


def _measured(model: ScoredModel, facts: Sequence[Fact], batch_size: int) -> tuple[list[bool], list[bool]]:
    family = model.family
    task = memory_task(facts)
    recalled: list[bool] = []
    recognised: list[bool] = []
    for first in range(0, len(facts), batch_size):
        some = facts[first : first + batch_size]
        features = family.features(task, list(map(as_example, some)))
        foils = family.features(task, [as_example(fact, fact.foil) for fact in some])
        for fact, (answer, _) in zip(some, family.answers(task, features, model.device), strict=True):
            recalled.append(SCORERS["exact-match"].equals(answer, fact.answer))
        for loss, of_foil in zip(losses_of(model, features), losses_of(model, foils), strict=True):
            recognised.append(loss < of_foil)
    return recalled, recognised


def _share(found: Sequence[bool]) -> float:
    return 100.0 * sum(found) / len(found)
