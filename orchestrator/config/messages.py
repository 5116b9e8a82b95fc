"""One line for what pydantic found wrong in a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from methods import unknown
from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.training import TrainingConfig
from orchestrator.errors import as_given, shown

Location = tuple[int | str, ...]

# what pydantic calls a tuple or a model is a list or a section to whom writes YAML
_PLAIN_WORDS = {
    "tuple_type": "a list",
    "too_short": "a list of at least one",
    "dict_type": "a mapping",
    "model_type": "a mapping of settings",
}


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: the path of the key, what is wrong, what is allowed."""
    errors = _without_echoes(error.errors(include_url=False))
    first = _most_telling(errors)
    location = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        # the key itself is in the message, so the path ends at its section
        message = unknown("key", as_given(str(location[-1])), _keys_at(location))
        location = location[:-1]
    elif first["type"] in _PLAIN_WORDS:
        message = f"expected {_PLAIN_WORDS[first['type']]}, found {shown(first['input'])}"
    elif first["type"] != "value_error" and not isinstance(first["input"], dict | list | tuple | BaseModel):
        message += f" (found {shown(first['input'])})"
    if len(errors) > 1:
        message += f" (and {len(errors) - 1} more)"
    path = _path(location)
    if path:
        return f"{path}: {message}"
    return message


def _without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those that follow from others: a list whose every entry is wrong is too short for pydantic, too."""
    kept = []
    for error in errors:
        location = error["loc"]
        within = [other for other in errors if other is not error and other["loc"][: len(location)] == location]
        if error["type"] != "too_short" or not within:
            kept.append(error)
    return kept


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first error; of a choice such as "a name or a mapping", the complaint about the mapping says more."""
    for error in errors:
        if error["type"] != "string_type":
            return error
    return errors[0]


def _path(location: Location) -> str:
    """The keys that lead to a value, as a user writes them: without the types among which pydantic chose."""
    keys = []
    for part in location:
        if not _is_type(str(part)):
            keys.append(str(part))
    return ".".join(keys)


def _is_type(part: str) -> bool:
    if part.endswith("Config") or part.startswith(("dict[", "literal[", "constrained-")):
        return True
    return part in ("str", "function-before")


def _keys_at(location: Location) -> list[str]:
    """The keys that the section around the last part of a location has."""
    section: Any = RunConfig
    for part in location[:-1]:
        # indices of lists, and types among which pydantic chose, lead to no other section
        if isinstance(part, str) and part in getattr(section, "model_fields", {}):
            section = _section_of(section.model_fields[part].annotation)
    keys = list(getattr(section, "model_fields", {}))
    if section is MethodEntry:
        # `training` is a free mapping for pydantic, and `preset` is gone before the fields are read
        if location[-2] == "training":
            return list(TrainingConfig.model_fields)
        keys.append("preset")
    return keys


def _section_of(annotation: Any) -> Any:
    """The section that a field holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
