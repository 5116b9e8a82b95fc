"""From a configuration to the sequences that it asks for, and the keys that name what each of them makes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.stream import StreamConfig
from orchestrator.errors import UserError
from orchestrator.models.families import family_of
from orchestrator.models.source import find_model
from orchestrator.planning.keys import _sha, score_keys, state_keys
from orchestrator.planning.sequence_plan import SequencePlan, Split
from orchestrator.store.test_access_log import TestAccessLog
from streams import Stream, Task


def plan(config: RunConfig, gpu: bool = False) -> list[SequencePlan]:
    """The sequences of an experiment, all checked: models found, data read, keys computed. Raises UserError.

    `gpu` says whether training runs on GPUs, which decides what precision "auto" means.
    """
    planner = Planner(config, gpu)
    sequences = [
        sequence
        for stream in config.streams
        for method in config.methods
        for seed in config.seeds
        for sequence in planner.sequences(method, stream, seed)
    ]
    planner.note_reads()
    return sequences


class Planner:
    """Plans sequences of one experiment: finds the model once and reads each stream once. Raises UserError."""

    def __init__(self, config: RunConfig, gpu: bool = False, why: str = "hashes alone, for the keys") -> None:
        self.config, self.why = config, why
        with _as_user_error():
            self.source = find_model(config.model)
            self.family = family_of(self.source, config.model)
        for method in config.methods:
            if not self.family.generates and any(part.card.requires_generation for part in method.types):
                raise UserError(
                    f"methods: {method.label!r} needs a model that generates text; {config.model.name!r} is an encoder"
                )
        precision = ("bf16" if gpu else "float32") if config.model.precision == "auto" else config.model.precision
        self.model = config.model.model_copy(update={"precision": precision})
        self._streams: dict[tuple[StreamConfig, Split], Stream] = {}
        self._read: list[Task] = []

    def stream(self, stream: StreamConfig, split: Split = "test") -> Stream:
        """The stream's data, read for its content's hash; sealed where it is for tuning (`split` "dev")."""
        place = (stream.located(), split)
        if place not in self._streams:
            with _as_user_error():
                built = place[0].build()
                built = built.sealed() if split == "dev" else built.watched(self._read.append)
                _check_dev(built, split)
                if not stream.only:
                    _check_epochs(self.config, built)
            self._streams[place] = built
        return self._streams[place]

    def note_reads(self) -> None:
        """Log which test splits were read. Called when all is checked: what is refused leaves nothing."""
        note = TestAccessLog(Path(self.config.out)).reader(self.config.name, "plan", self.why)
        while self._read:
            note(self._read.pop(0))

    def sequences(
        self,
        method: MethodEntry,
        stream: StreamConfig,
        seed: int,
        split: Split = "test",
        prefix: str = "",
        parents: tuple[tuple[str, str], ...] = (),
    ) -> list[SequencePlan]:
        """The one sequence of a method; of experts one a task. `prefix` goes before a name."""
        if not method.run_kind.one_sequence_per_task:
            return [self._sequence(method, stream, seed, split, prefix, parents)]
        only = [stream.model_copy(update={"only": task.name}) for task in self.stream(stream, split).tasks]
        return [self._sequence(method, part, seed, split, prefix, parents) for part in only]

    def _sequence(
        self,
        method: MethodEntry,
        stream: StreamConfig,
        seed: int,
        split: Split,
        prefix: str,
        parents: tuple[tuple[str, str], ...],
    ) -> SequencePlan:
        data = self.stream(stream, split)
        with _as_user_error():
            training = self.config.training_for(method)
            keys = state_keys(self.model, self.source.identity, data, method, training, seed)
            cells = score_keys(keys, self.model, data, method, split)
        name = "-".join([prefix + method.label, data.name, *([stream.only] if stream.only else []), f"s{seed}"])
        return SequencePlan(
            id=f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{_sha(name, cells)[:8]}",
            experiment=self.config.name,
            model=self.model,
            model_identity=self.source.identity,
            stream=stream.located(),
            method=method.model_copy(update={"space": {}}),
            training=training,
            evaluation=self.config.evaluation,
            seed=seed,
            split=split,
            parents=parents,
            tasks=tuple(task.name for task in data.tasks),
            keys=tuple(keys),
            score_keys=cells,
            out=self.config.out,
        )


@contextlib.contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_dev(stream: Stream, split: Split) -> None:
    for task in stream.tasks if split == "dev" else ():
        if not task.has_dev:
            raise UserError(
                f"search.streams: task {task.name!r} of stream {stream.name!r} has no dev split; raise dev_fraction"
            )


def _check_epochs(config: RunConfig, stream: Stream) -> None:
    names = [task.name for task in stream.tasks]
    for name in (name for m in config.methods for name in config.training_for(m).epochs_per_task):
        if name not in names:
            raise UserError(
                f"training.epochs_per_task: stream {stream.name!r} has no task {name!r}: {', '.join(names)}"
            )
