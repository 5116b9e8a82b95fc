"""What a source of streams is: settings that a user writes, and the stream that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from streams.names import unknown_name
from streams.splits import Limits, Objective
from streams.stream import Stream

# No rate, weight, count or time is beyond it, nor a number of FLOPs
MOST_NUMBER = 1e30


def refuse_no_number(value: Any) -> None:
    """Raises ValueError for infinity and what is beyond all that is counted, alone or in a list or mapping."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            refuse_no_number(part)
    # a comparison with what is no number is false
    elif isinstance(value, float) and not abs(value) <= MOST_NUMBER:
        raise ValueError(f"found {value!r}; allowed: numbers up to {MOST_NUMBER:g}")


def refuse_boolean(value: Any, annotation: Any) -> None:
    """Raises ValueError for true or false, alone or in a list or mapping, where the annotation has no boolean.

    pydantic takes them for 1 and 0: `epochs: true` would train one epoch, and nobody would know why.
    """
    if _holds_boolean(value) and not _takes_boolean(annotation):
        raise ValueError(
            f"found {value!r} where a number or a text is expected (YAML reads yes, no, on and off so; quote a text)"
        )


def _takes_boolean(annotation: Any) -> bool:
    # a section of its own checks its own fields
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    # a Literal names its values, which may be true or false
    if annotation in (bool, Any) or isinstance(annotation, bool):
        return True
    return any(map(_takes_boolean, get_args(annotation)))


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)


def times_of(values: Sequence[Any], where: str) -> list[float | str]:
    """When the rows of a split are from: all numbers, or all texts, such as dates with the year first.

    Raises ValueError, with the number of the row, where one has no time or another kind of it than the first.
    """
    times: list[float | str] = []
    for number, value in enumerate(values, start=1):
        if value is None or isinstance(value, bool):
            raise ValueError(f"{where}: row {number} has no time (found {value!r})")
        if isinstance(value, int | float):
            times.append(float(value))
        else:
            # `datasets` gives dates as such, which Python writes with the year first
            times.append(str(value))
        # numbers and texts have no order among each other
        if type(times[-1]) is not type(times[0]):
            raise ValueError(f"{where}: the times mix numbers and texts ({value!r} in row {number})")
    return times


class SourceSettings(BaseModel):
    """Settings as a user writes them: frozen, and an unknown key is refused with the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(unknown_name("key", str(key), cls.model_fields))
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_boolean(value, cls.model_fields[str(info.field_name)].annotation)
        return value

    @field_validator("*")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        refuse_no_number(value)
        return value


class Source(SourceSettings):
    """Where a stream's text comes from. The fields of a subclass are the keys of a stream's entry in a YAML file.

    The keys that every stream has (`name`, `max_train`, `prompt` and so on) are not the source's: they reach it as
    `limits`, or are applied to the tasks that it returns. `objective` is that of all its tasks.
    """

    objective: ClassVar[Objective] = "answer"

    @classmethod
    def recognises(cls, settings: Mapping[str, Any]) -> bool:
        """Whether an entry that names no source, and no stream of the catalogue, is meant for this one."""
        return False

    def located(self) -> Self:
        """The same with full paths, so that a worker on another machine needs no variable of this one."""
        return self

    def stream(self, name: str, limits: Limits) -> Stream:
        """The stream of that name. Reads no split. Raises ValueError where the data is missing or wrong."""
        raise NotImplementedError
