"""TODO orchestrator.config.method"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from methods import PUBLISHED, MethodSpec, method_spec
from orchestrator.config.search import Dimension
from orchestrator.config.training import TrainingConfig


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
        if isinstance(value, Mapping) and value.get("training") == "published":
            known = value.get("preset")
            if not isinstance(known, str) or known not in PUBLISHED:
                raise ValueError(
                    f"training: no published training of {known!r} is known; known: {', '.join(PUBLISHED)}"
                )
            value = {**value, "training": PUBLISHED[known]}
        if isinstance(value, Mapping) and "preset" in value:
            rest = {k: v for k, v in value.items() if k != "preset"}
            return {**method_spec(value["preset"]).model_dump(), **rest}
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.+ ()=,-]*", name):
            raise ValueError(f"{name!r}: a method's name has letters, digits, spaces and . + - _ ( ) = , only")
        return name

    @field_validator("training")
    @classmethod
    def _is_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "budget" in value:
            raise ValueError("budget: a budget is the same for all methods; set it in the experiment's `training`")
        TrainingConfig.model_validate(value)
        return value

    @property
    def spec(self) -> MethodSpec:
        """The method without its training settings."""
        return MethodSpec(name=self.name, tuning=self.tuning, plugins=self.plugins, reference=self.reference)
