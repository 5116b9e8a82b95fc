"""A method of an experiment as a user writes it: a tuning method and plug-ins, or a preset's name, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from methods.base import Context, Method, TuningMethod
from methods.presets import PRESETS
from methods.reference_runs import REFERENCE_RUNS, RunKind, run_kind
from methods.registry import METHODS, full_name, is_dotted_path, method_class, unknown
from methods.seam.card import Card
from methods.seam.scored_weights import ScoredWeights
from methods.seam.stored_form import StoredForm
from methods.source_code import described_code
from methods.stack import Stack


class Part(BaseModel):
    """One tuning method or plug-in: its registered name or dotted path, and its settings, all filled in."""

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
        # a copy, as keys are taken out of it and the mapping is the user's
        given = dict(value)
        name = given.pop("name")
        # of the two ways to write a path one is kept, so that a part has one name in tables and in a search's space
        if is_dotted_path(name):
            name = name.replace(":", ".")
        method_type = method_class(name)
        dumped = given.pop("settings", {})
        try:
            settings = method_type.Settings.model_validate({**given, **dumped})
        # pydantic would show its own many-line message inside ours
        except ValidationError as error:
            raise ValueError(_wrong_setting(name, method_type, error)) from None
        # with the defaults filled in, so that a part that spells them out has the same cache key
        return {"name": name, "settings": settings.model_dump()}

    @property
    def type(self) -> type[Method]:
        """The part's class, imported here if it is not yet: a worker gets the part by its name alone."""
        return method_class(self.name)

    @property
    def is_tuning(self) -> bool:
        """Whether it is a tuning method, not a plug-in."""
        return issubclass(self.type, TuningMethod)

    def build(self, context: Context) -> Method:
        """The method itself."""
        return self.type(self.type.Settings.model_validate(self.settings), context)


def _wrong_setting(part: str, method_type: type[Method], error: ValidationError) -> str:
    """One line about the first wrong setting of a part."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{part}: " + unknown("key", key, method_type.Settings.model_fields)
    if first["type"] == "value_error":
        reason = first["msg"].removeprefix("Value error, ")
        where = part
        # a validator of the whole settings names no key
        if key:
            where = f"{part}.{key}"
        return f"{where}: {reason}"
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
        if not part.is_tuning:
            known = ", ".join(_names(tuning=True))
            raise ValueError(f"{part.name!r} is a plug-in, not a tuning method; tuning methods: {known}")
        return part

    @field_validator("plugins")
    @classmethod
    def _are_plugins(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        for part in parts:
            if part.is_tuning:
                known = ", ".join(_names(tuning=False))
                raise ValueError(f"{part.name!r} is a tuning method, not a plug-in; plug-ins: {known}")
        names = [full_name(part.name) for part in parts]
        for part in parts:
            if names.count(full_name(part.name)) > 1:
                raise ValueError(f"{part.name!r} is listed twice; its settings go into one entry")
            for other, why in part.type.card.not_with.items():
                if other in names:
                    raise ValueError(f"{part.name!r} does not go with {other!r}: {why}")
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
        tuning_type = self.tuning_type
        # first: where nothing trains, a reason why two parts do not go together would mislead
        if self.plugins:
            self._check_trains_a_sequence()
        card = tuning_type.card
        refusal = self.run_kind.refusal(self.tuning.name, tuning_type.trains_by_gradient, card.per_task_weights)
        if refusal:
            raise ValueError(refusal)
        for part in self.plugins:
            reason = missing_for(part.type.card, card)
            if reason:
                raise ValueError(f"{part.name!r} cannot be combined with {self.tuning.name!r}: {reason}")
        self._check_stored_form()
        return self

    def _check_stored_form(self) -> None:
        """Raises ValueError where the weights are stored in a form of a part's own, and not alone or in another one too."""
        parts = (self.tuning, *self.plugins)
        for part in parts:
            if not issubclass(part.type, StoredForm):
                continue
            for other in parts:
                if other is not part and issubclass(other.type, StoredForm):
                    raise ValueError(f"{part.name!r} does not go with {other.name!r}: both say how weights are stored")
                if issubclass(other.type, ScoredWeights):
                    raise ValueError(
                        f"{part.name!r} does not go with {other.name!r}, which scores other weights than training goes "
                        "on from: what is stored is to be both"
                    )

    def _check_trains_a_sequence(self) -> None:
        """Raises ValueError where there is nothing that a plug-in could change."""
        if self.reference:
            why = f"the reference run {self.reference!r} trains no sequence"
        elif not self.tuning_type.trains_by_gradient:
            why = f"{self.tuning.name!r} trains nothing"
        else:
            return
        raise ValueError(f"{self.plugins[0].name!r}: {why}, so there is nothing that a plug-in could change")

    @property
    def run_kind(self) -> RunKind:
        """What is trained in the turn of each task, and on which data."""
        return run_kind(self.reference)

    @property
    def tuning_type(self) -> type[TuningMethod]:
        """The tuning method's class."""
        found = self.tuning.type
        assert issubclass(found, TuningMethod)
        return found

    @property
    def types(self) -> list[type[Method]]:
        """The tuning method's class and its plug-ins'."""
        types = [self.tuning.type]
        for part in self.plugins:
            types.append(part.type)
        return types

    @property
    def code(self) -> dict[str, str]:
        """The version of each part and the source of a user's, in a few words, by the names of cache keys."""
        described = {}
        for part in (self.tuning, *self.plugins):
            described[full_name(part.name)] = described_code(part.type)
        return described

    @property
    def trains_by_gradient(self) -> bool:
        """Whether it trains anything by gradient steps."""
        return self.run_kind.trains_anything and self.tuning_type.trains_by_gradient

    @property
    def trains_sequentially(self) -> bool:
        """Whether it trains every task of a sequence by gradient steps."""
        return self.run_kind.learns_a_sequence and self.trains_by_gradient

    @property
    def kept_share(self) -> float:
        """The share of each earlier task's examples that the method keeps; 0 where it keeps none."""
        share = 0.0
        for part in (self.tuning, *self.plugins):
            setting = part.type.card.kept_share
            # the largest: what is kept of a task is one choice, of which parts with a smaller share use the beginning
            if setting:
                share = max(share, float(part.settings[setting]))
        return share

    @property
    def label(self) -> str:
        """The given name, or one made of the parts."""
        if self.name:
            return self.name
        names = [self.tuning.name]
        for part in self.plugins:
            names.append(part.name)
        label = "+".join(names)
        if self.reference:
            label = f"{label} ({self.reference})"
        return label

    def build(self, context: Context) -> Stack:
        """The tuning method and its plug-ins, ready to train, under the names that go into cache keys."""
        tuning = self.tuning.build(context)
        assert isinstance(tuning, TuningMethod)
        plugins = []
        for part in self.plugins:
            own_context = replace(context, alone_with_gradients=self._is_alone_with_gradients(part))
            plugins.append((full_name(part.name), part.build(own_context)))
        return Stack(tuning, plugins, full_name(self.tuning.name))

    def _is_alone_with_gradients(self, part: Part) -> bool:
        """Whether no other part adds to the loss or looks at gradients."""
        for other in (self.tuning, *self.plugins):
            if other is not part and acts_on_gradients(other.type):
                return False
        return True


def acts_on_gradients(method_type: type[Method]) -> bool:
    """Whether a method has a hook that may change the loss or the gradients, whatever it does there."""
    for hook in ("after_forward", "add_gradients", "before_optimizer_step"):
        if getattr(method_type, hook) is not getattr(Method, hook):
            return True
    return False


def missing_for(plugin: Card, tuning: Card) -> str:
    """Why a tuning method does not offer what a plug-in requires; empty where it does."""
    if plugin.requires_output_units and tuning.no_output_units:
        return tuning.no_output_units
    if plugin.requires_shared_weights and tuning.per_task_weights:
        return tuning.per_task_weights
    if plugin.requires_gradients and tuning.no_gradients:
        return tuning.no_gradients
    if plugin.requires_own_weights and tuning.no_own_weights:
        return tuning.no_own_weights
    return ""


def _names(tuning: bool) -> list[str]:
    names = []
    for name, method_type in METHODS.items():
        if issubclass(method_type, TuningMethod) == tuning:
            names.append(name)
    return names


def method_spec(value: str | Mapping[str, Any]) -> MethodSpec:
    """A method from a preset's name or from {tuning, plugins, name}. Raises ValueError for an unknown name."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(unknown("method", value, PRESETS))
        return MethodSpec.model_validate({"name": value, **PRESETS[value]})
    return MethodSpec.model_validate(value)
