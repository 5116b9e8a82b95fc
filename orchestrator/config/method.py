"""What a user may ask for of a method: a preset or parts, with training settings and a search space of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from methods import PUBLISHED, MethodSpec, method_spec
from orchestrator.config.search import Dimension
from orchestrator.config.training import TrainingConfig

MOST_OF_A_NAME = 100


class MethodEntry(MethodSpec):
    """A method of the experiment, with training settings of its own where it needs them (such as a learning rate)."""

    training: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Dimension] = Field(default_factory=dict, description="what a search tries, where not as declared")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """Accepts "ft+migu", {preset: ft+migu, training: … or `published`}, or {tuning: …, plugins: […]}."""
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, Mapping):
            return value
        entry = dict(value)
        # asked for by name alone: a preset that brought its rate unasked would be compared at another than the rest
        if entry.get("training") == "published":
            entry["training"] = _published_training(entry.get("preset"))
        if "preset" in entry:
            preset = method_spec(entry.pop("preset"))
            entry = {**preset.model_dump(), **entry}
        return entry

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if len(name) > MOST_OF_A_NAME:
            raise ValueError(f"a name of {len(name)} characters; allowed: up to {MOST_OF_A_NAME}")
        # it becomes part of names of files and of MLflow runs
        if not re.fullmatch(r"[\w.+ ()=,-]*", name):
            raise ValueError(f"{name!r}: a method's name has letters, digits, spaces and . + - _ ( ) = , only")
        return name

    @field_validator("training")
    @classmethod
    def _is_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "budget" in value:
            raise ValueError("budget: a budget is the same for all methods; set it in the experiment's `training`")
        # checked here for the path of a wrong key; what counts is resolved with the shared settings (`RunConfig`)
        TrainingConfig.model_validate(value)
        return value

    @property
    def spec(self) -> MethodSpec:
        """The method without its training settings."""
        return MethodSpec(name=self.name, tuning=self.tuning, plugins=self.plugins, reference=self.reference)


def _published_training(preset: Any) -> dict[str, Any]:
    if not isinstance(preset, str) or preset not in PUBLISHED:
        raise ValueError(f"training: no published training of {preset!r} is known; known: {', '.join(PUBLISHED)}")
    return dict(PUBLISHED[preset])
