"""TODO orchestrator.config.messages"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, ValidationError

from methods import unknown
from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.training import TrainingConfig
from streams import HubTask


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: where, what is wrong, what is allowed."""
    # of a choice such as "a name or a mapping", the complaint about the mapping says more
    errors = [e for e in error.errors() if e["type"] != "string_type"] or error.errors()
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if not _is_noise(part))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        keys = _keys_at(first["loc"])
        message = unknown("key", str(first["loc"][-1]), keys)
        where = ".".join(str(part) for part in first["loc"][:-1] if not _is_noise(part))
    elif first["type"] != "value_error" and not isinstance(first["input"], dict | list | tuple | BaseModel):
        message += f" (found {first['input']!r})"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where + ': ' if where else ''}{message}{more}"


def _is_noise(part: int | str) -> bool:
    return isinstance(part, str) and (part.endswith(("Config", "HubTask")) or part in ("str", "function-before"))


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `loc[:-1]` has."""
    section: Any = RunConfig
    for part in loc[:-1]:
        if isinstance(part, str) and part in getattr(section, "model_fields", {}):
            section = _section_of(section.model_fields[part].annotation)
    if section is MethodEntry and loc[-2] == "training":
        return list(TrainingConfig.model_fields)
    if "HubTask" in loc:
        return [f.name for f in dataclasses.fields(HubTask)]
    keys = list(getattr(section, "model_fields", {}))
    return [*keys, "preset"] if section is MethodEntry else keys


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
