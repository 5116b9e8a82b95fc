"""The held-out protocol: tune each method where the evaluation never looks, freeze what was chosen, evaluate that."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from methods import Context
from orchestrator.compute import epoch_steps
from orchestrator.config import MethodEntry, RunConfig, SearchConfig, check_batch
from orchestrator.driver import alone, checked, close, mirror_of, run_planned
from orchestrator.errors import SequenceFailed, UserError
from orchestrator.experiment import open_experiment, search_folder
from orchestrator.journal import Journal, Tail
from orchestrator.plan import Planner, Sequence
from orchestrator.progress import SearchScreen
from orchestrator.search_report import print_choice, save_phase_1, search_results
from orchestrator.space import Space, check_grid, check_names, space_of, with_values
from orchestrator.tracking import Mirror
from orchestrator.trials import Contender, TrialBook, search_key
from streams import Stream
from streams.holdout import Proof, prove


@dataclass(frozen=True)
class Search:
    """A search that has been checked: nothing overlaps, the scenarios are the same, every value is allowed."""

    config: RunConfig
    settings: SearchConfig
    planner: Planner
    contenders: tuple[Contender, ...]
    proof: Proof
    scenario: tuple[tuple[int, int], ...]

    @property
    def folder(self) -> Path:
        """Where its journal, its choice and its pictures are."""
        return search_folder(self.config.out, self.config.name)

    @property
    def definition(self) -> str:
        """Names all that the choice depends on, but for the number of trials."""
        return _sha([c.definition for c in self.contenders])


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
        proof = prove(settings.holdout, tuning, evaluation, settings.straddling)
    except ValueError as error:
        raise UserError(str(error)) from error
    contenders = tuple(_contender(config, settings, planner, method) for method in config.methods)
    _check_measure(settings, planner, len(tuning[0].tasks))
    planner.note_reads()
    return Search(config, settings, planner, contenders, proof, scenario)


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


def _contender(config: RunConfig, settings: SearchConfig, planner: Planner, method: MethodEntry) -> Contender:
    space = space_of(settings, method)
    if settings.select == "first-task":
        space = {name: d for name, d in space.items() if _acts_on_first_task(method, space, name)}
    if settings.searcher == "grid":
        check_grid(space, method.label, settings.trials)
    _check_together(config, method, space)
    pairs = itertools.product(settings.streams, settings.seeds)
    made = [s.cell_keys for stream, seed in pairs for s in planner.sequences(method, stream, seed, "dev")]
    how = settings.model_dump(mode="json", exclude={"streams", "seeds", "trials", "trial_tasks", "at_once", "space"})
    tried = {name: dimension.model_dump(mode="json") for name, dimension in space.items()}
    return Contender(method, space, _sha([method.label, how, tried, made]))


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
    influences = [with_values(method, {name: v}).spec.build(Context(0)).influence(0) for v in ends]
    return any(influence != influences[0] for influence in influences[1:])


def tune_experiment(
    config: RunConfig, console: Console, retry_failed: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Both phases. Returns (what the report shows, what went wrong).

    Raises UserError before the first trial, and SequenceFailed where no trial of any method finished.
    """
    with checked(config) as gpus:
        search = prepare(config, gpus > 0)
        with alone(config, "search"), contextlib.ExitStack() as cluster:
            book = TrialBook(search.folder, search.settings, search.planner, search.contenders, gpus)
            if retry_failed:
                book.reopen_failed()
            tell(search, {"event": "search_started", "config": config.model_dump(mode="json")})
            mirror = mirror_of(config, search.folder)
            try:
                _run_phase_1(search, book, mirror, console, cluster)
                problems = _run_phase_2(search, book, mirror, console)
            finally:
                behind = close(mirror)
            return search_results(open_experiment(config.name, config.out)) | {"mlflow_behind": behind}, problems


def _run_phase_2(search: Search, book: TrialBook, mirror: Mirror, console: Console) -> list[str]:
    """Freeze the choice and evaluate it. Returns what went wrong."""
    freeze(search, book)
    chosen = read_chosen(search)
    files = save_phase_1(search, book, chosen)
    tell(search, {"event": "search_frozen", "sha256": chosen["sha256"], "files": [str(f) for f in files]})
    print_choice(chosen, console)
    if not chosen["methods"]:
        reason = book.ends[book.all()[0].key].reason
        raise SequenceFailed(f"no trial of any method finished, so nothing is evaluated; the first: {reason}")
    problems = [f"{label}: no trial finished, so it is not evaluated" for label in chosen["missing"]]
    frozen = frozen_config(search.config, chosen)
    result, more = run_planned(frozen, evaluation_sequences(search, frozen, chosen), console, mirror)
    if not more and all(s["status"] == "finished" for s in result["sequences"]):
        summary = search_results(open_experiment(frozen.name, frozen.out))["search"]["summary"]
        tell(search, {"event": "search_finished", "summary": summary})
    return problems + more


def _run_phase_1(
    search: Search, book: TrialBook, mirror: Mirror, console: Console, cluster: contextlib.ExitStack
) -> None:
    """Run the trials that are missing. `cluster` keeps the Ray cluster, where one was needed, for the second phase."""
    from orchestrator import train

    book.end_complete()
    with SearchScreen(book, search.proof.statement, console) as screen:

        def watch() -> None:
            mirror.follow(s.id for trial in list(book.trials.values()) for s in trial.sequences)
            screen.show()

        watch()
        if book.is_done():
            return
        screen.say("starting Ray")
        resources = cluster.enter_context(train.cluster())
        from orchestrator.tune import run_trials

        screen.say("tuning")
        run_trials(book, search.config.scaling, resources, watch, search.config.name)
        watch()
    if not book.is_done():
        raise UserError("search: Ray Tune ended before all trials did; the same command goes on from here")


def tell(search: Search, event: dict[str, Any]) -> None:
    """Note a fact in the search's journal, once for all that it says."""
    known = [{k: v for k, v in e.items() if k != "time"} for e in Tail(search.folder).new_events()]
    if event not in known:
        Journal(search.folder, "search").append(event)


def freeze(search: Search, book: TrialBook) -> dict[str, Any]:
    """The chosen values, as the file `chosen.json` that the evaluation takes them from, with a SHA-256 over all of it.

    Raises UserError where a file is there that the search did not write: the evaluation takes no other values.
    """
    best = {c.label: book.best(c.label) for c in search.contenders}
    methods = {
        c.label: {
            "values": trial.values,
            "trial": trial.number,
            "score": book.ends[trial.key].score,
            "entry": with_values(c.entry, trial.values).model_dump(mode="json"),
        }
        for c in search.contenders
        if (trial := best[c.label])
    }
    content = {
        "search": search.config.name,
        "definition": search.definition,
        "holdout": search.settings.holdout,
        "select": search.settings.select,
        "trials_sha256": book.fingerprint(),
        "methods": methods,
        "missing": [label for label, trial in best.items() if trial is None],
    }
    chosen = content | {"sha256": _sha(content)}
    file = search.folder / "chosen.json"
    if file.exists() and _sha256_of(file) not in {chosen["sha256"], *_chosen_before(search)}:
        raise UserError(
            f"{file}: these are not the values that the search chose (their SHA-256 is not in its journal); "
            "the evaluation takes no others. Delete the file to have the chosen ones written again"
        )
    tell(search, {"event": "search_chosen", "sha256": chosen["sha256"]})
    aside = file.with_name(".chosen.json")
    aside.write_text(json.dumps(chosen, indent=1))
    aside.replace(file)
    return chosen


def read_chosen(search: Search) -> dict[str, Any]:
    """The values to evaluate, from the file. Raises UserError where the search's journal does not know them."""
    file = search.folder / "chosen.json"
    if _sha256_of(file) not in _chosen_before(search):
        raise UserError(f"{file}: these are not the values that the search chose; the evaluation takes no others")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _chosen_before(search: Search) -> list[str]:
    return [e["sha256"] for e in Tail(search.folder).new_events() if e["event"] == "search_chosen"]


def _sha256_of(file: Path) -> str:
    """The SHA-256 that a choice states, if that is what its content has; else nothing."""
    try:
        content = json.loads(file.read_text())
        said = str(content.pop("sha256"))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
    return said if said == _sha(content) else ""


def frozen_config(config: RunConfig, chosen: dict[str, Any]) -> RunConfig:
    """The evaluation phase: the evaluation streams and seeds, every method with its chosen values."""
    entries = [MethodEntry.model_validate(m["entry"]) for m in chosen["methods"].values()]
    return config.model_copy(update={"methods": tuple(entries)})


def evaluation_sequences(search: Search, frozen: RunConfig, chosen: dict[str, Any]) -> list[Sequence]:
    root = search_key(frozen.name)
    above = ((root, f"{frozen.name}: search"), (f"{root}/evaluation-{chosen['sha256'][:8]}", "evaluation"))
    return [
        sequence
        for stream in frozen.streams
        for method in frozen.methods
        for seed in frozen.seeds
        for sequence in search.planner.sequences(method, stream, seed, parents=above)
    ]


def _sha(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()
