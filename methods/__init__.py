"""Continual-learning methods: the seam (`base`), one file a method, and the names they go by."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from methods.agem import Agem
from methods.base import Batch, Context, Method, Settings, Stack, State, Tuning, at_least_float32, generator, trainable
from methods.conpet import Conpet
from methods.coso import Coso
from methods.derpp import Derpp
from methods.ewc import Ewc
from methods.full import Full
from methods.inclora import IncLora
from methods.l2 import L2
from methods.l2p import L2P
from methods.lfpt5 import LFPT5
from methods.lora import Lora
from methods.lwf import Lwf
from methods.mas import Mas
from methods.merge import Merge
from methods.migu import Migu
from methods.moelora import MoeLora
from methods.olora import OLora
from methods.osf import Osf
from methods.progprompt import ProgPrompt
from methods.projection import Projection
from methods.random_mask import RandomMask
from methods.refresh import Refresh
from methods.replay import Replay

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
    """One regime or plug-in: its registered name and its settings, all filled in."""

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
    """A method of an experiment: one tuning regime and plug-ins, under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    tuning: Part = Part(name="full")
    plugins: tuple[Part, ...] = ()

    @field_validator("tuning")
    @classmethod
    def _is_tuning(cls, part: Part) -> Part:
        if not issubclass(METHODS[part.name], Tuning):
            raise ValueError(f"{part.name!r} is a plug-in, not a tuning regime; regimes: {', '.join(_names(True))}")
        return part

    @field_validator("plugins")
    @classmethod
    def _are_plugins(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        for part in parts:
            if issubclass(METHODS[part.name], Tuning):
                raise ValueError(
                    f"{part.name!r} is a tuning regime, not a plug-in; plug-ins: {', '.join(_names(False))}"
                )
        return parts

    @model_validator(mode="after")
    def _fits(self) -> MethodSpec:
        """Refuses what cannot work together, before anything is computed."""
        regime = METHODS[self.tuning.name]
        assert issubclass(regime, Tuning)
        for part in self.plugins:
            if METHODS[part.name].requires_rows and regime.no_rows:
                raise ValueError(f"{part.name!r} cannot be combined with {self.tuning.name!r}: {regime.no_rows}")
            if METHODS[part.name].requires_lasting and regime.no_lasting:
                raise ValueError(f"{part.name!r} cannot be combined with {self.tuning.name!r}: {regime.no_lasting}")
            if METHODS[part.name].requires_gradients and regime.no_gradients:
                raise ValueError(f"{part.name!r} cannot be combined with {self.tuning.name!r}: {regime.no_gradients}")
        return self

    @property
    def types(self) -> list[type[Method]]:
        """The regime's class and its plug-ins'."""
        return [METHODS[part.name] for part in (self.tuning, *self.plugins)]

    @property
    def label(self) -> str:
        """The given name, or one made of the parts."""
        return self.name or "+".join([self.tuning.name, *(p.name for p in self.plugins)])

    def build(self, context: Context) -> Stack:
        """The regime and its plug-ins, ready to train."""
        tuning = self.tuning.build(context)
        assert isinstance(tuning, Tuning)
        return Stack(tuning, [(p.name, p.build(context)) for p in self.plugins], self.tuning.name)


def _names(tuning: bool) -> list[str]:
    return [name for name, method in METHODS.items() if issubclass(method, Tuning) == tuning]


def unknown(what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """One line about a name that is not known: the nearest one, and all that there are."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}"


# The published names.
PRESETS: dict[str, dict[str, Any]] = {
    "ft": {"tuning": "full"},
    "ft+migu": {"tuning": "full", "plugins": ["migu"]},
    "ft+random": {"tuning": "full", "plugins": ["random_mask"]},
    "lora": {"tuning": "lora"},
    "lora+migu": {"tuning": "lora", "plugins": ["migu"]},
    "lora+random": {"tuning": "lora", "plugins": ["random_mask"]},
    "replay": {"tuning": "full", "plugins": ["replay"]},
    "replay+migu": {"tuning": "full", "plugins": ["replay", "migu"]},
    "lorareplay": {"tuning": "lora", "plugins": ["replay"]},
    "lorareplay+migu": {"tuning": "lora", "plugins": ["replay", "migu"]},
    # the paper's rank; alpha / r stays that of `lora`
    "conpet": {"tuning": {"name": "lora", "r": 4, "alpha": 16.0}, "plugins": ["conpet"]},
    "agem": {"tuning": "full", "plugins": ["agem"]},
    "der++": {"tuning": "full", "plugins": ["derpp"]},
    "ewc": {"tuning": "full", "plugins": ["ewc"]},
    "ewc+migu": {"tuning": "full", "plugins": ["ewc", "migu"]},
    "mas": {"tuning": "full", "plugins": ["mas"]},
    "l2": {"tuning": "full", "plugins": ["l2"]},
    "lwf": {"tuning": "full", "plugins": ["lwf"]},
    "refresh": {"tuning": "full", "plugins": ["refresh"]},
    "gpm": {"tuning": "full", "plugins": ["projection"]},
    **{
        name: {"tuning": "full", "plugins": [{"name": "merge", "rule": rule}]}
        for name, rule in {
            "average": "average",
            "ema": "ema",
            "arithmetic": "arithmetic",
            "dare": "dare",
            "opcm": "opcm",
        }.items()
    },
    "ties": {"tuning": "full", "plugins": [{"name": "merge", "rule": "ties", "scale": 0.5}]},
    "inclora": {"tuning": "inclora"},
    "inclora+migu": {"tuning": "inclora", "plugins": ["migu"]},
    "olora": {"tuning": "olora"},
    "olora+migu": {"tuning": "olora", "plugins": ["migu"]},
    "moelora": {"tuning": "moelora"},
    "osf": {"tuning": "osf"},
    "coso": {"tuning": "coso"},
    "progprompt": {"tuning": "progprompt"},
    "l2p": {"tuning": "l2p"},
    "lfpt5": {"tuning": "lfpt5"},
}


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
    "Batch",
    "Context",
    "Method",
    "MethodSpec",
    "Part",
    "Settings",
    "Stack",
    "State",
    "Tuning",
    "ValidationError",
    "at_least_float32",
    "generator",
    "method_spec",
    "trainable",
    "unknown",
]
