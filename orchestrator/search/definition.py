"""TODO orchestrator.search.definition"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import Context
from orchestrator.config.experiment import RunConfig, check_batch
from orchestrator.config.method import MethodEntry
from orchestrator.config.search import SearchConfig
from orchestrator.errors import UserError
from orchestrator.planning.experiment import search_folder
from orchestrator.planning.planner import Planner
from orchestrator.search.space import Space, check_grid, check_names, space_of, with_values
from orchestrator.search.trials import MethodSearch
from orchestrator.training.cost import epoch_steps
from streams import Stream
from streams.holdout import Proof, prove


@dataclass(frozen=True)
class Search:
    """A search that has been checked: nothing overlaps, the scenarios are the same, every value is allowed."""

    config: RunConfig
    settings: SearchConfig
    planner: Planner
    method_searches: tuple[MethodSearch, ...]
    proof: Proof
    scenario: tuple[tuple[int, int], ...]

    @property
    def folder(self) -> Path:
        """Where its journal, its choice and its pictures are."""
        return search_folder(self.config.out, self.config.name)

    @property
    def definition(self) -> str:
        """Names all that the choice depends on, but for the number of trials."""
        return content_hash([c.definition for c in self.method_searches])


def prepare(config: RunConfig, gpu: bool) -> Search:
    """Check a search before its first trial. Raises UserError with the first thing that is wrong."""
    settings = config.search
    if settings is None:
        raise UserError("search: this recipe has no such section; it names the streams to tune on (see README)")
    check_names(settings)
    planner = Planner(config, gpu, why="hashes alone, for keys and the proof that nothing overlaps")
    tuning = [planner.stream(s, "dev") for s in settings.streams]
    evaluation = [planner.stream(s) for s in config.streams]
    scenario = _same_scenario(config, tuning, evaluation)
    try:
        proof = prove(settings.holdout, tuning, evaluation, settings.allowed_related_pairs)
    except ValueError as error:
        raise UserError(str(error)) from error
    method_searches = tuple(_method_search(config, settings, planner, method) for method in config.methods)
    _check_measure(settings, planner, len(tuning[0].tasks))
    planner.note_reads()
    return Search(config, settings, planner, method_searches, proof, scenario)


def _check_measure(settings: SearchConfig, planner: Planner, tasks: int) -> None:
    if settings.metric == "aa_options" and planner.family.generates:
        raise UserError("search.metric: aa_options does not apply to models that generate their answers; allowed: aa")
    if settings.scheduler == "asha" and settings.grace >= tasks:
        raise UserError(
            f"search.grace: {settings.grace} is not below the {tasks} tasks of a trial: nothing could be stopped"
        )


def _same_scenario(config: RunConfig, tuning: list[Stream], evaluation: list[Stream]) -> tuple[tuple[int, int], ...]:
    """(train examples, steps or budget) of each task, in order of size; the same for all streams. Raises UserError otherwise.

    Model, batch and the methods' memory are the same by construction: both phases have one configuration.
    """
    first = evaluation[0]
    unit = config.training.budget.unit if config.training.budget else "steps"
    for method in config.methods:
        expected = _scenario(config, method, first)
        for stream in (*evaluation[1:], *tuning):
            found = _scenario(config, method, stream)
            if len(found) != len(expected):
                raise UserError(
                    f"search.streams: not the same scenario: stream {stream.name!r} has {len(found)} tasks, "
                    f"{first.name!r} has {len(expected)}"
                )
            for (examples, steps), (others, other_steps) in zip(found, expected, strict=True):
                if (examples, steps) != (others, other_steps):
                    raise UserError(
                        f"search.streams: not the same scenario: stream {stream.name!r} has a task of {examples} train examples "
                        f"({steps} {unit}) where {first.name!r} has {others} ({other_steps} {unit}); set max_train on both"
                    )
    return _scenario(config, config.methods[0], first)


def _scenario(config: RunConfig, method: MethodEntry, stream: Stream) -> tuple[tuple[int, int], ...]:
    training = config.training_for(method)

    def length(name: str, examples: int) -> int:
        budget = training.budget
        return round(budget.amount) if budget else epoch_steps(training, name, examples, training.global_batch)

    sizes = ((task.name, len(task.read("train"))) for task in stream.tasks)
    return tuple(sorted((examples, length(name, examples)) for name, examples in sizes))


def _method_search(config: RunConfig, settings: SearchConfig, planner: Planner, method: MethodEntry) -> MethodSearch:
    space = space_of(settings, method)
    if settings.select == "first-task":
        space = {name: d for name, d in space.items() if _acts_on_first_task(method, space, name)}
    if settings.searcher == "grid":
        check_grid(space, method.label, settings.trials)
    _check_together(config, method, space)
    pairs = itertools.product(settings.streams, settings.seeds)
    made = [s.score_keys for stream, seed in pairs for s in planner.sequences(method, stream, seed, "dev")]
    how = settings.model_dump(
        mode="json", exclude={"streams", "seeds", "trials", "trial_tasks", "max_concurrent", "space"}
    )
    tried = {name: dimension.model_dump(mode="json") for name, dimension in space.items()}
    return MethodSearch(method, space, content_hash([method.label, how, tried, made]))


def _check_together(config: RunConfig, method: MethodEntry, space: Space) -> None:
    """Raises UserError where searched values that are each allowed do not go together, or with the workers."""
    if config.training.budget and "training.epochs" in space:
        raise UserError("search.space.training.epochs: with training.budget, epochs are not used")
    named = [n for n in ("global_batch", "micro_batch", "schedule", "warmup") if f"training.{n}" in space]
    sides = [(d.values or (d.low, d.high)) for d in (space[f"training.{n}"] for n in named)]
    for values in itertools.product(*sides):
        chosen: dict[str, Any] = {f"training.{n}": value for n, value in zip(named, values, strict=True)}
        try:
            check_batch(config.training_for(with_values(method, chosen)), config.scaling.workers)
        except ValueError as error:
            raise UserError(f"search.space: {error}") from None


def _acts_on_first_task(method: MethodEntry, space: Space, name: str) -> bool:
    """Whether a parameter can make a difference while only one task is trained."""
    dimension = space[name]
    if name.startswith("training."):
        return True
    ends = (dimension.low, dimension.high) if dimension.values is None else dimension.values
    influences = [with_values(method, {name: v}).spec.build(Context(0)).cache_fields(0) for v in ends]
    return any(influence != influences[0] for influence in influences[1:])


def content_hash(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()
