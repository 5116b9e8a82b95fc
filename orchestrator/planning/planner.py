"""From a configuration to the sequences that it asks for: models found, data read, everything checked."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from methods import is_ours, source_of
from methods.shared.quantised import check_installed
from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.config.running import EvaluationConfig
from orchestrator.config.stream import StreamConfig
from orchestrator.errors import UserError, shown
from orchestrator.models.families import family_of
from orchestrator.models.source import find_model
from orchestrator.planning.data_checks import check_dev, check_leaks
from orchestrator.planning.door import check_method, check_model
from orchestrator.planning.fairness import doubt_about_rate
from orchestrator.planning.keys import code_of, content_key, points_keys, score_keys, state_keys
from orchestrator.planning.probes import ProbeColumns, check_probes, memories_of, probe_columns
from orchestrator.planning.room import doubts_about_room
from orchestrator.planning.sequence_plan import SequencePlan, Split
from orchestrator.planning.suitability import check_epochs, check_family, check_objectives, check_stream, for_objectives
from orchestrator.storage.places import folder_at
from orchestrator.store.access_log import TestAccessLog
from streams import Stream, Task, doubts

# Of what becomes the name of a sequence's files
MOST_OF_A_NAME = 200

ParentRuns = tuple[tuple[str, str], ...]


Warn = Callable[[str], None]


def plan(
    config: RunConfig,
    gpu: bool = False,
    warn: Warn | None = None,
    is_done: Callable[[Sequence[SequencePlan]], bool] | None = None,
) -> list[SequencePlan]:
    """The sequences of an experiment, all checked: models found, data read, keys computed. Raises UserError.

    `gpu` says whether training runs on GPUs, which decides what precision "auto" means. `warn` is told once of each thing
    that is no mistake of form and yet makes a score say nothing (see `streams.doubts`). `is_done` says whether nothing is
    left to train or score: then no model is built to see whether the methods work on it, which takes seconds.
    """
    planner = Planner(config, gpu, warn=warn, tries_models=is_done is None)
    sequences: list[SequencePlan] = []
    for stream in config.streams:
        for method in config.methods:
            for seed in config.seeds:
                sequences.extend(planner.sequences(method, stream, seed))
    if is_done is not None and not is_done(sequences):
        planner.try_models()
    if warn is not None:
        for method in config.methods:
            doubt = doubt_about_rate(method, config.training_for(method))
            if doubt:
                warn(doubt)
    planner.record_reads()
    return sequences


class Planner:
    """Plans sequences of one experiment: finds the model once and reads each stream once. Raises UserError."""

    def __init__(
        self,
        config: RunConfig,
        gpu: bool = False,
        why: str = "hashes alone, for the keys",
        warn: Warn | None = None,
        tries_models: bool = True,
    ) -> None:
        with _as_user_error():
            check_installed(config.model.base)
            self.source = find_model(config.model)
            objectives = {stream.settings.objective for stream in config.streams}
            model = for_objectives(config.model, self.source, objectives)
            self.family = family_of(self.source, model)
        self.config = config.model_copy(update={"model": model})
        self.why = why
        self.warn = warn
        self._warned: set[str] = set()
        check_family(config, self.family)
        with _as_user_error():
            if config.evaluation.probes is not None:
                check_probes(config.evaluation.probes.located(), self.source.kind, config.model.name)
        self.model = _with_precision(model, gpu)
        if tries_models:
            self.try_models()
        self._tell_missing_sources()
        self._streams: dict[str, Stream] = {}
        self._test_reads: list[Task] = []

    def try_models(self) -> None:
        """Refuse a model that cannot be loaded, and methods that do not work on it."""
        with _as_user_error():
            check_model(self.source, self.config.model)
            for method in self.config.methods:
                check_method(self.source, self.config.model, method.spec)

    def stream(self, stream: StreamConfig, split: Split = "test") -> Stream:
        """The stream's data, read for its content's hash; sealed where it is for tuning (`split` "dev")."""
        located = stream.located()
        # as text: a configuration holds mappings, which cannot be hashed
        cache_key = f"{split} {located.model_dump_json()}"
        if cache_key not in self._streams:
            with _as_user_error():
                built = located.build()
                if split == "dev":
                    built = built.sealed()
                    check_dev(built)
                else:
                    built = built.watched(self._test_reads.append)
                check_objectives(built, self.config.model, self.family, self.config.methods)
                check_stream(built, config=self.config, family=self.family)
                # one task alone is a part of a stream whose names were checked as a whole
                if not stream.only:
                    check_epochs(built, self.config)
                self._tell(doubts(built))
                self._tell(check_leaks(built, stream.allow))
                # a tokenizer takes a second to load: only for who is told what it finds
                if self.warn is not None and self.family.generates:
                    self._tell(doubts_about_room(self.source, self.config.model, built))
            self._streams[cache_key] = built
        return self._streams[cache_key]

    def _tell(self, lines: Iterable[str]) -> None:
        """Warn of each thing once."""
        if self.warn is None:
            return
        for line in lines:
            # a stream is opened once for each seed and for each task alone, and has the same doubts each time
            if line not in self._warned:
                self._warned.add(line)
                self.warn(line)

    def _tell_missing_sources(self) -> None:
        for method in self.config.methods:
            for part in (method.tuning, *method.plugins):
                if is_ours(part.type):
                    continue
                missing = source_of(part.type).missing
                if missing:
                    self._tell(
                        [
                            f"{part.name}: no source of {', '.join(missing)} was found, so checkpoints do not know when it "
                            "changes: raise its card's version then, or give another --out"
                        ]
                    )

    def record_reads(self) -> None:
        """Write to the test-access log which test splits were read.

        Called when all is checked: a configuration that is refused has read nothing that anyone learns.
        """
        record = TestAccessLog(folder_at(self.config.out)).reader(self.config.name, "plan", self.why)
        while self._test_reads:
            record(self._test_reads.pop(0))

    def sequences(
        self,
        method: MethodEntry,
        stream: StreamConfig,
        seed: int,
        split: Split = "test",
        prefix: str = "",
        parents: ParentRuns = (),
    ) -> list[SequencePlan]:
        """The one sequence of a method; of experts one a task. `prefix` goes before a name."""
        stream = stream.for_seed(seed)
        if not method.run_kind.one_sequence_per_task:
            return [self._sequence(method, stream, seed, split, prefix, parents)]
        sequences = []
        for task in self.stream(stream, split).tasks:
            task_alone = stream.model_copy(update={"only": task.name})
            sequences.append(self._sequence(method, task_alone, seed, split, prefix, parents))
        return sequences

    def _sequence(
        self, method: MethodEntry, stream: StreamConfig, seed: int, split: Split, prefix: str, parents: ParentRuns
    ) -> SequencePlan:
        data = self.stream(stream, split)
        with _as_user_error():
            training = self.config.training_on(method, data)
            keys = state_keys(self.model, self.source.identity, data, method, training, seed)
            keys_of_scores = score_keys(keys, self.model, data, method, split)
            keys_of_points = self._points_keys(keys, data, split)
        # a benchmark's rows are no tuning data, and an expert's one task says nothing of a stream
        takes_probes = split == "test" and not method.run_kind.one_sequence_per_task
        evaluation, columns = self._beside_tasks(stream, keys, takes_probes)
        name_parts = [prefix + method.label, data.name, f"s{seed}"]
        if stream.only:
            name_parts.insert(2, stream.only)
        name = "-".join(name_parts)
        file_name = _file_name(name)
        # names are the user's and may be used again for other content: the hash keeps the journals apart
        digest = content_key(name, keys_of_scores)[:8]
        return SequencePlan(
            id=f"{file_name}-{digest}",
            experiment=self.config.name,
            model=self.model,
            model_identity=self.source.identity,
            stream=stream.located(),
            method=method.model_copy(update={"space": {}}),
            code=code_of(method),
            training=training,
            evaluation=evaluation,
            checkpoints=self.config.checkpoints,
            seed=seed,
            split=split,
            parents=parents,
            tasks=data.task_names,
            scorers=tuple(task.scorer for task in data.tasks),
            keys=tuple(keys),
            score_keys=keys_of_scores,
            points_keys=keys_of_points,
            probe_names=columns.names,
            probe_keys=columns.keys,
            out=self.config.out,
        )

    def _beside_tasks(
        self, stream: StreamConfig, keys: Sequence[str], takes_probes: bool
    ) -> tuple[EvaluationConfig, ProbeColumns]:
        """The evaluation of a sequence, and what its states take beside the tasks."""
        evaluation = self.config.evaluation
        if not takes_probes:
            return evaluation.model_copy(update={"probes": None}), ProbeColumns()
        if evaluation.probes is not None:
            evaluation = evaluation.model_copy(update={"probes": evaluation.probes.located()})
        return evaluation, probe_columns(evaluation.probes, memories_of(stream), self.model, keys)

    def _points_keys(self, keys: Sequence[str], data: Stream, split: Split) -> tuple[str, ...]:
        during = self.config.evaluation.during
        if during is None:
            return ()
        return points_keys(keys, self.model, data, split, during, self.family.generates)


def _file_name(name: str) -> str:
    """The name as part of names of files. Raises UserError where these would be longer than files' names can be."""
    file_name = re.sub(r"[^A-Za-z0-9.]+", "-", name)
    if len(file_name) > MOST_OF_A_NAME:
        raise UserError(
            f"names of {len(file_name)} characters together: {shown(name)}; allowed for method, stream, task and seed: "
            f"{MOST_OF_A_NAME}; give the method or the stream a shorter `name`"
        )
    return file_name


@contextlib.contextmanager
def _as_user_error() -> Iterator[None]:
    """What the layers below find wrong with data and models is the user's to mend."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _with_precision(model: ModelConfig, gpu: bool) -> ModelConfig:
    """The model's configuration with what "auto" means: decided once, whichever machine then trains a sequence."""
    precision = model.precision
    if precision == "auto":
        precision = "float32"
        if gpu:
            precision = "bf16"
    if model.base == "bf16" and precision != "bf16":
        raise UserError("model.base: 'bf16' goes with model.precision: bf16, in which all else is computed then")
    return model.model_copy(update={"precision": precision})
