"""What every section of a configuration is, and checks that several of them need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from streams import refuse_boolean, refuse_no_number


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


# what torch takes as a seed on every platform
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]


def check_unique(what: str, values: Iterable[Any], advice: str = "") -> None:
    """Raises ValueError where a value comes twice."""
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{what}: {value!r} is given twice{advice}")
