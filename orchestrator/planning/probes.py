"""Which benchmarks of base abilities there are, and the names of their results. lm-evaluation-harness is an extra."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.config.running import ProbesConfig
from orchestrator.planning.keys import content_key

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


def probe_keys(probes: ProbesConfig | None, keys: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """[T+1][P]: by tasks seen, then by benchmark, the name of a state's result.

    A benchmark is known by its name, the harness's version and the files of one's own folder; data that a task file takes
    from elsewhere is not looked at.
    """
    if probes is None:
        return ()
    own = _hash_of_folder(probes.include) if probes.include else ""
    asked = [PROBE_FORMAT, version("lm_eval"), own, probes.few_shot, probes.limit]
    rows = []
    for key in keys:
        row = []
        for name in probes.tasks:
            row.append(content_key(*asked, name, key))
        rows.append(tuple(row))
    return tuple(rows)


def _hash_of_folder(folder: str) -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(folder).rglob("*")):
        # what Python writes beside a task's own functions
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(folder)}\n{file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
