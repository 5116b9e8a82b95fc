"""What a search is, checked before its first trial.

Nothing overlaps between what is tuned on and what is evaluated, both sides have the same scenario, and every value that
may be tried is allowed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods import Context
from orchestrator.config.experiment import RunConfig, check_workers
from orchestrator.config.method import MethodEntry
from orchestrator.config.search import SearchConfig
from orchestrator.config.stream import StreamConfig
from orchestrator.errors import UserError
from orchestrator.evaluation.measure import Measure
from orchestrator.evaluation.metrics import METRICS
from orchestrator.evaluation.scorers import common_measure
from orchestrator.planning.experiment import search_folder
from orchestrator.planning.fairness import doubt_about_rate, memory_shares
from orchestrator.planning.planner import Planner, Warn
from orchestrator.planning.sequence_plan import Split
from orchestrator.search.space import Space, Values, check_grid, check_names, names_of_no_method, space_of, with_values
from orchestrator.search.task_sizes import TaskSize, same_scenario
from streams import Stream
from streams.holdout import Proof, prove

# Settings of which a change makes no other search: more trials add to those that are there, and what is tried of each
# method is in the definition by itself.
_NOT_OF_THE_DEFINITION = {"streams", "seeds", "trials", "trial_tasks", "max_concurrent", "space"}

# Training settings that restrict each other, so that their combinations are checked and not only each value.
_CHECKED_TOGETHER = ("training.global_batch", "training.micro_batch", "training.schedule", "training.warmup")


@dataclass(frozen=True)
class MethodSearch:
    """A method of the search: its space, and the hash that names everything that its trials depend on."""

    entry: MethodEntry
    space: Space
    definition: str

    @property
    def label(self) -> str:
        """The method's name."""
        return self.entry.label


@dataclass(frozen=True)
class Search:
    """A search that has been checked: nothing overlaps, the scenarios are the same, every value is allowed."""

    config: RunConfig
    settings: SearchConfig
    planner: Planner
    method_searches: tuple[MethodSearch, ...]
    proof: Proof
    scenario: tuple[TaskSize, ...]
    measure: Measure

    @property
    def folder(self) -> Path:
        """Where its journal, its choice and its plots are."""
        return search_folder(self.config.out, self.config.name)

    @property
    def definition(self) -> str:
        """The hash that names all that the choice depends on, but for the number of trials."""
        definitions = []
        for method_search in self.method_searches:
            definitions.append(method_search.definition)
        return content_hash(definitions)

    def description(self) -> dict[str, Any]:
        """The search without its trials, as plain values: the first half of `search.json` (see `results`)."""
        settings = self.settings
        tuning, evaluation = open_streams(self.config, settings, self.planner)
        spaces = {}
        for method_search in self.method_searches:
            spaces[method_search.label] = _plain_space(method_search.space)
        return {
            "search": self.config.name,
            "metric": settings.metric,
            "measure": asdict(self.measure),
            "forgetting_weight": settings.forgetting_weight,
            "select": settings.select,
            "searcher": settings.searcher,
            "scheduler": settings.scheduler,
            "proof": self.proof.as_dict(),
            "scenario": self.scenario,
            "memory": memory_shares(self.config.methods),
            "tuning_streams": [s.name for s in settings.streams],
            "tuning_seeds": list(settings.seeds),
            "trials_each": settings.trials,
            "datasets": {"tuning": _dataset_names(tuning), "evaluation": _dataset_names(evaluation)},
            "spaces": spaces,
        }


def open_streams(config: RunConfig, settings: SearchConfig, planner: Planner) -> tuple[list[Stream], list[Stream]]:
    """The streams that are tuned on, their test splits sealed, and those that the chosen values are evaluated on."""
    tuning = _streams_of(planner, settings.streams, settings.seeds, "dev")
    evaluation = _streams_of(planner, config.streams, config.seeds, "test")
    return tuning, evaluation


def _streams_of(planner: Planner, streams: Iterable[StreamConfig], seeds: Iterable[int], split: Split) -> list[Stream]:
    """Each stream as the runs of each seed see it, those that are the same for all seeds once."""
    opened: dict[int, Stream] = {}
    for stream, seed in itertools.product(streams, seeds):
        # the planner reads one stream once, so what is the same for two seeds is one object
        built = planner.stream(stream.for_seed(seed), split)
        opened[id(built)] = built
    return list(opened.values())


def _dataset_names(streams: list[Stream]) -> list[str]:
    names: set[str] = set()
    for stream in streams:
        for task in stream.tasks:
            names.add(task.dataset)
            # what is mixed into a task is trained on too
            names.update(guest.dataset for guest in task.guest_tasks)
    return sorted(names)


def _plain_space(space: Space) -> dict[str, Any]:
    plain = {}
    for name, dimension in space.items():
        plain[name] = dimension.model_dump(mode="json")
    return plain


def prepare(config: RunConfig, gpu: bool, warn: Warn | None = None) -> Search:
    """Check a search before its first trial. Raises UserError with the first thing that is wrong.

    `gpu` says whether training runs on GPUs, which decides what precision "auto" means; `warn` is told of doubtful data.
    """
    settings = config.search
    if settings is None:
        raise UserError("search: this recipe has no such section; it names the streams to tune on (see README)")
    check_names(settings)
    planner = Planner(config, gpu, "hashes alone, for keys and the proof that nothing overlaps", warn)
    tuning, evaluation = open_streams(config, settings, planner)
    scenario = same_scenario(config, tuning, evaluation)
    try:
        proof = prove(settings.holdout, tuning, evaluation, settings.allowed_related_pairs)
    except ValueError as error:
        raise UserError(str(error)) from error
    memory_shares(config.methods)
    for name in names_of_no_method(settings, config.methods):
        # A recipe's space may be for more methods than were asked for, so this is said and not refused.
        if warn:
            warn(f"search.space.{name}: no method of this search has it; it is left out")
    if warn and settings.holdout == "labels":
        _warn_of_one_class_order(config, settings, warn)
    method_searches = []
    for method in config.methods:
        method_search = _method_search(config, settings, planner, method)
        doubt = doubt_about_rate(method, config.training_for(method), method_search.space.get("training.lr"))
        if doubt and warn:
            warn(doubt)
        method_searches.append(method_search)
    measure = _measure_of_all([*tuning, *evaluation])
    _check_measure(settings, planner, len(tuning[0].tasks))
    # Last: a search that is refused leaves nothing in the test-access log.
    planner.record_reads()
    return Search(config, settings, planner, tuple(method_searches), proof, scenario, measure)


def _warn_of_one_class_order(config: RunConfig, settings: SearchConfig, warn: Warn) -> None:
    """Say where every seed has the classes in one order, which is then a part of what was tuned and what is reported."""
    for stream in (*settings.streams, *config.streams):
        if stream.labels_per_task is not None and stream.class_order != "by-seed":
            warn(
                f"stream {stream.name!r}: every seed has its classes in one order; class_order: by-seed gives each seed "
                "its own, as arXiv 2403.09066 does"
            )


def _measure_of_all(streams: list[Stream]) -> Measure:
    tasks = list(itertools.chain.from_iterable(stream.tasks for stream in streams))
    try:
        return common_measure(tasks)
    except ValueError as error:
        raise UserError(f"search.metric: {error}; no mean over them can be maximised") from error


def _check_measure(settings: SearchConfig, planner: Planner, num_tasks: int) -> None:
    # An optional metric is one that only models with options to choose from have.
    if METRICS[settings.metric].is_optional and planner.family.generates:
        raise UserError(
            f"search.metric: {settings.metric} does not apply to models that generate their answers; allowed: aa"
        )
    if settings.scheduler == "asha" and settings.grace >= num_tasks:
        raise UserError(
            f"search.grace: {settings.grace} is not below the {num_tasks} tasks of a trial: nothing could be stopped"
        )


def _method_search(config: RunConfig, settings: SearchConfig, planner: Planner, method: MethodEntry) -> MethodSearch:
    space = space_of(settings, method)
    if settings.select == "first-task":
        space = _first_task_space(method, space)
    if settings.searcher == "grid":
        check_grid(space, method.label, settings.trials)
    _check_together(config, method, space)
    # The keys of the scores with the method's own values stand for model, data and training: a change of any of these
    # makes another search, whose trials begin anew.
    score_keys = []
    for stream, seed in itertools.product(settings.streams, settings.seeds):
        for sequence in planner.sequences(method, stream, seed, "dev"):
            score_keys.append(sequence.score_keys)
    left_out = set(_NOT_OF_THE_DEFINITION)
    # Where no trial depends on another, rounds make no difference.
    if not settings.in_rounds:
        left_out.add("at_once")
    how = settings.model_dump(mode="json", exclude=left_out)
    return MethodSearch(method, space, content_hash([method.label, how, _plain_space(space), score_keys]))


def _check_together(config: RunConfig, method: MethodEntry, space: Space) -> None:
    """Raises UserError where searched values that are each allowed do not go together, or with the workers."""
    candidates = {}
    for name in _CHECKED_TOGETHER:
        if name in space:
            dimension = space[name]
            candidates[name] = dimension.values or (dimension.low, dimension.high)
    for combination in itertools.product(*candidates.values()):
        values: Values = dict(zip(candidates, combination, strict=True))
        try:
            check_workers([config.training_for(with_values(method, values))], config.scaling)
        except ValueError as error:
            raise UserError(f"search.space: {error}") from None


def _first_task_space(method: MethodEntry, space: Space) -> Space:
    """The parameters that can make a difference while only one task is trained; the others keep their values."""
    kept = {}
    for name, dimension in space.items():
        if name.startswith("training.") or _acts_on_first_task(method, space, name):
            kept[name] = dimension
    return kept


def _acts_on_first_task(method: MethodEntry, space: Space, name: str) -> bool:
    dimension = space[name]
    # What can have influenced the weights after the first task is what the checkpoint's key holds of the method.
    cache_fields = []
    for value in dimension.values or (dimension.low, dimension.high):
        stack = with_values(method, {name: value}).spec.build(Context(0))
        cache_fields.append(stack.cache_fields(0))
    return cache_fields.count(cache_fields[0]) < len(cache_fields)


def content_hash(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()
