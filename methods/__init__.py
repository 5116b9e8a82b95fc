"""Continual-learning methods: the seam (`base`), one file a method, and the names they go by."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from methods.adapters.inclora import IncLora
from methods.adapters.lora import Lora
from methods.adapters.moelora import MoeLora
from methods.adapters.olora import OLora
from methods.base import (
    Batch,
    Context,
    Method,
    Settings,
    State,
    TuningMethod,
    at_least_float32,
    generator,
    trainable,
)
from methods.full import Full
from methods.masking.migu import Migu
from methods.masking.random_mask import RandomMask
from methods.merging.merge import Merge
from methods.nmc import Nmc
from methods.presets import PRESETS, PUBLISHED
from methods.prompts.l2p import L2P
from methods.prompts.lfpt5 import LFPT5
from methods.prompts.progprompt import ProgPrompt
from methods.reference_runs import REFERENCE_RUNS, ReferenceRun, RunKind, run_kind
from methods.regularisation.ewc import Ewc
from methods.regularisation.l2 import L2
from methods.regularisation.lwf import Lwf
from methods.regularisation.mas import Mas
from methods.regularisation.refresh import Refresh
from methods.replay.agem import Agem
from methods.replay.conpet import Conpet
from methods.replay.derpp import Derpp
from methods.replay.replay import Replay
from methods.seam.card import Card
from methods.stack import Stack
from methods.subspaces.coso import Coso
from methods.subspaces.osf import Osf
from methods.subspaces.projection import Projection

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "lora": Lora,
    "inclora": IncLora,
    "olora": OLora,
    "moelora": MoeLora,
    "osf": Osf,
    "coso": Coso,
    "progprompt": ProgPrompt,
    "l2p": L2P,
    "lfpt5": LFPT5,
    "nmc": Nmc,
    "migu": Migu,
    "random_mask": RandomMask,
    "replay": Replay,
    "conpet": Conpet,
    "agem": Agem,
    "derpp": Derpp,
    "ewc": Ewc,
    "mas": Mas,
    "l2": L2,
    "lwf": Lwf,
    "refresh": Refresh,
    "projection": Projection,
    "merge": Merge,
}


class Part(BaseModel):
    """One tuning method or plug-in: its registered name and its settings, all filled in."""

    model_config = ConfigDict(frozen=True)
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Accepts "migu", {name: migu, ratio: 0.5}, or what `model_dump` gave."""
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError("expected a method's name, or a mapping with `name` and its settings")
        name = value["name"]
        if name not in METHODS:
            raise ValueError(unknown("method part", name, METHODS))
        rest = {k: v for k, v in value.items() if k not in ("name", "settings")}
        try:
            settings = METHODS[name].Settings.model_validate({**rest, **value.get("settings", {})})
        except ValidationError as error:
            raise ValueError(_wrong_setting(name, error)) from None
        return {"name": name, "settings": settings.model_dump()}

    def build(self, context: Context) -> Method:
        """The method itself."""
        method = METHODS[self.name]
        return method(method.Settings.model_validate(self.settings), context)


def _wrong_setting(part: str, error: ValidationError) -> str:
    """One line about the first wrong setting of a part."""
    first = error.errors()[0]
    key = ".".join(str(place) for place in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{part}: " + unknown("key", key, METHODS[part].Settings.model_fields)
    if first["type"] == "value_error":
        return f"{part}{'.' if key else ''}{key}: {first['msg'].removeprefix('Value error, ')}"
    return f"{part}.{key}: {first['msg']} (found {first['input']!r})"


class MethodSpec(BaseModel):
    """A method of an experiment: one tuning method and plug-ins, under a name.

    Or a reference run, which learns no sequence (see `methods.reference_runs`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    tuning: Part = Part(name="full")
    plugins: tuple[Part, ...] = ()
    reference: str | None = None

    @field_validator("tuning")
    @classmethod
    def _is_tuning(cls, part: Part) -> Part:
        if not issubclass(METHODS[part.name], TuningMethod):
            raise ValueError(
                f"{part.name!r} is a plug-in, not a tuning method; tuning methods: {', '.join(_names(True))}"
            )
        return part

    @field_validator("plugins")
    @classmethod
    def _are_plugins(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        for part in parts:
            if issubclass(METHODS[part.name], TuningMethod):
                raise ValueError(
                    f"{part.name!r} is a tuning method, not a plug-in; plug-ins: {', '.join(_names(False))}"
                )
        return parts

    @field_validator("reference")
    @classmethod
    def _is_reference_run(cls, name: str | None) -> str | None:
        if name is not None and name not in REFERENCE_RUNS:
            raise ValueError(unknown("reference run", name, REFERENCE_RUNS))
        return name

    @model_validator(mode="after")
    def _fits(self) -> MethodSpec:
        """Refuses what cannot work together, before anything is computed."""
        tuning_type = METHODS[self.tuning.name]
        assert issubclass(tuning_type, TuningMethod)
        if self.plugins and (self.reference or not tuning_type.trains_by_gradient):
            why = (
                f"the reference run {self.reference!r} trains no sequence"
                if self.reference
                else f"{self.tuning.name!r} trains nothing"
            )
            raise ValueError(f"{self.plugins[0].name!r}: {why}, so there is nothing that a plug-in could change")
        refusal = self.run_kind.refusal(
            self.tuning.name, tuning_type.trains_by_gradient, tuning_type.card.per_task_weights
        )
        if refusal:
            raise ValueError(refusal)
        for part in self.plugins:
            if METHODS[part.name].card.requires_output_units and tuning_type.card.no_output_units:
                raise ValueError(
                    f"{part.name!r} cannot be combined with {self.tuning.name!r}: {tuning_type.card.no_output_units}"
                )
            if METHODS[part.name].card.requires_shared_weights and tuning_type.card.per_task_weights:
                raise ValueError(
                    f"{part.name!r} cannot be combined with {self.tuning.name!r}: {tuning_type.card.per_task_weights}"
                )
            if METHODS[part.name].card.requires_gradients and tuning_type.card.no_gradients:
                raise ValueError(
                    f"{part.name!r} cannot be combined with {self.tuning.name!r}: {tuning_type.card.no_gradients}"
                )
        return self

    @property
    def run_kind(self) -> RunKind:
        """What is trained in the turn of each task, and on which data."""
        return run_kind(self.reference)

    @property
    def types(self) -> list[type[Method]]:
        """The tuning method's class and its plug-ins'."""
        return [METHODS[part.name] for part in (self.tuning, *self.plugins)]

    @property
    def trains_by_gradient(self) -> bool:
        """Whether it trains anything by gradient steps."""
        tuning_type = METHODS[self.tuning.name]
        assert issubclass(tuning_type, TuningMethod)
        return self.run_kind.trains_anything and tuning_type.trains_by_gradient

    @property
    def trains_sequentially(self) -> bool:
        """Whether it trains every task of a sequence by gradient steps."""
        return self.run_kind.learns_a_sequence and self.trains_by_gradient

    @property
    def label(self) -> str:
        """The given name, or one made of the parts."""
        parts = "+".join([self.tuning.name, *(p.name for p in self.plugins)])
        return self.name or (f"{parts} ({self.reference})" if self.reference else parts)

    def build(self, context: Context) -> Stack:
        """The tuning method and its plug-ins, ready to train."""
        tuning = self.tuning.build(context)
        assert isinstance(tuning, TuningMethod)
        return Stack(tuning, [(p.name, p.build(context)) for p in self.plugins], self.tuning.name)


def _names(tuning: bool) -> list[str]:
    return [name for name, method in METHODS.items() if issubclass(method, TuningMethod) == tuning]


def unknown(what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """One line about a name that is not known: the nearest one, and all that there are."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}"


def method_spec(value: str | Mapping[str, Any]) -> MethodSpec:
    """A method from a preset's name or from {tuning, plugins, name}. Raises ValueError for an unknown name."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(unknown("method", value, PRESETS))
        return MethodSpec.model_validate({"name": value, **PRESETS[value]})
    return MethodSpec.model_validate(value)


__all__ = [
    "METHODS",
    "PRESETS",
    "PUBLISHED",
    "REFERENCE_RUNS",
    "Batch",
    "Card",
    "Context",
    "Method",
    "MethodSpec",
    "Part",
    "ReferenceRun",
    "RunKind",
    "Settings",
    "Stack",
    "State",
    "TuningMethod",
    "ValidationError",
    "at_least_float32",
    "generator",
    "method_spec",
    "run_kind",
    "trainable",
    "unknown",
]
