"""Which benchmarks of base abilities there are, and the names of their results. lm-evaluation-harness is an extra."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.config.model import ModelConfig
from orchestrator.config.running import ProbesConfig
from orchestrator.config.stream import StreamConfig
from orchestrator.planning.keys import content_key, states_of
from streams.scenarios.memories import NAME as MEMORIES
from streams.scenarios.memories import Memories

# Part of every key, as `keys.SCORE_FORMAT` is of a score's
PROBE_FORMAT = 1
# Whether the harness's own tasks are looked at where a folder has not all that are asked for
DEFAULTS = True


def check_probes(probes: ProbesConfig, model_kind: str, model: str) -> None:
    """Raises ValueError where a benchmark is not known, or cannot be asked of the model."""
    if model_kind == "encoder":
        raise ValueError(f"evaluation.probes: they ask a model how likely texts are, and {model!r} is an encoder")
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError(
            "evaluation.probes: lm-evaluation-harness is not installed: pip install 'continual-orchestrator[probes]'"
        )
    if probes.include is not None and not Path(probes.include).is_dir():
        raise ValueError(f"evaluation.probes.include: folder {probes.include!r} does not exist")
    for name in probes.tasks:
        if name == MEMORIES:
            raise ValueError(
                f"evaluation.probes.tasks: {name!r} is what a stream with the scenario of that name takes by itself"
            )
        if name not in harness_tasks(probes).all_tasks:
            where = f", nor in {probes.include!r}" if probes.include else ""
            raise ValueError(f"evaluation.probes.tasks: {name!r} is no task of lm-evaluation-harness{where}")


def harness_tasks(probes: ProbesConfig) -> Any:
    """The harness's list of tasks, with those of one's own folder; of that folder alone where it has all that are asked for."""
    if probes.include is not None:
        own = _harness_tasks(probes.include, False)
        if set(probes.tasks) <= set(own.all_tasks):
            return own
    return _harness_tasks(probes.include, DEFAULTS)


# it reads some ten thousand files, for seconds
@cache
def _harness_tasks(include: str | None, include_defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include, include_defaults=include_defaults)


@dataclass(frozen=True)
class ProbeColumns:
    """What each state of a sequence takes beside its tasks: the names, and [T+1][P] by tasks seen, then by name, the keys."""

    names: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()


def probe_columns(
    probes: ProbesConfig | None, memories: Memories | None, model: ModelConfig, keys: Sequence[str]
) -> ProbeColumns:
    """The benchmarks that are asked for and, where a stream has them, the memories; with what names each state's results.

    A benchmark is known by its name, the harness's version and the files of one's own folder; data that a task file takes
    from elsewhere is not looked at.
    """
    asked: dict[str, list[Any]] = {}
    if probes is not None:
        own = _hash_of_folder(probes.include) if probes.include else ""
        for name in probes.tasks:
            asked[name] = [PROBE_FORMAT, version("lm_eval"), own, probes.few_shot, probes.limit, name]
    if memories is not None:
        asked[MEMORIES] = [PROBE_FORMAT, memories.model_dump(mode="json"), model.max_target]
    if not asked:
        return ProbeColumns()
    rows = []
    for state in states_of(keys):
        rows.append(tuple(content_key(*parts, state) for parts in asked.values()))
    return ProbeColumns(tuple(asked), tuple(rows))


def memories_of(stream: StreamConfig) -> Memories | None:
    """The facts that a stream's first task is mixed with, if any."""
    for scenario in stream.scenario:
        if isinstance(scenario, Memories):
            return scenario
    return None


def _hash_of_folder(folder: str) -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(folder).rglob("*")):
        # what Python writes beside a task's own functions
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(folder)}\n{file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
