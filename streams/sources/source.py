"""What a source of streams is: settings that a user writes, and the stream that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from streams.names import unknown_name
from streams.splits import Limits
from streams.stream import Stream


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


class Source(SourceSettings):
    """Where a stream's text comes from. The fields of a subclass are the keys of a stream's entry in a YAML file.

    The keys that every stream has (`name`, `max_train`, `prompt` and so on) are not the source's: they reach it as
    `limits`, or are applied to the tasks that it returns.
    """

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
