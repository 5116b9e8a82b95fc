"""What all events have."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def now_ms() -> int:
    """The present time in milliseconds since 1970."""
    return int(time.time() * 1000)


class Event(BaseModel):
    """A fact and when it was recorded."""

    # a diagnostic may be NaN, which must come back as it was written
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    name: ClassVar[str] = ""

    time: int = Field(default_factory=now_ms)

    def to_json(self) -> dict[str, Any]:
        """The event as plain values, with its name under `event`."""
        return {"event": self.name, **self.model_dump(mode="json")}

    def says_the_same_as(self, other: Event) -> bool:
        """Whether both record one fact, whenever each was recorded."""
        return self.model_copy(update={"time": other.time}) == other


Report = Callable[[Event], None]
