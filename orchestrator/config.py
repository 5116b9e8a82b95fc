"""What a user may ask for: the configuration of an experiment, read from YAML and checked once, at the door."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

import streams as streams_package
from methods import MethodSpec, method_spec, unknown
from orchestrator.errors import UserError
from streams import HubTask, Limits, Stream

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "embedded"


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Section):
    """The model, and how text goes in and answers come out."""

    name: str = Field("tiny-t5", description="a built-in name, a local folder, or a hub id")
    revision: str | None = Field(None, description="the hub commit; by default the newest, which is then recorded")
    overrides: dict[str, Any] = Field(default_factory=dict, description="changes to a built-in model's configuration")
    scoring: Literal["auto", "generate", "head", "similarity"] = Field(
        "auto", description="auto: generate for (encoder-)decoders, similarity for sentence encoders, else head"
    )
    input: Literal["auto", "prompt", "text"] = Field(
        "auto", description="auto: the prompt if generating, else the text"
    )
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, float32 elsewhere")
    max_source: int = Field(512, ge=8, description="tokens of the input at most; longer texts are shortened")
    max_target: int = Field(50, ge=2, description="tokens of the answer at most")


class StreamConfig(Section):
    """A stream: a name of the catalogue, or tasks of a folder, or tasks of the hub; and how much of each."""

    name: str
    folder: str | None = Field(None, description="where the tasks are; default: the variable CL_BENCHMARK_DIR")
    tasks: tuple[str | HubTask, ...] | None = Field(None, description="own tasks, in order")
    max_train: int | None = Field(None, ge=1)
    max_dev: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    dev_fraction: float = Field(0.1, ge=0, lt=1, description="share of train that is held out as the dev split")
    seed: int = Field(0, ge=0, description="chooses the rows (not the training order)")

    @model_validator(mode="after")
    def _known(self) -> StreamConfig:
        if self.tasks is None and self.name not in streams_package.DESCRIPTIONS:
            hint = unknown("stream", self.name, streams_package.DESCRIPTIONS)
            raise ValueError(f"{hint}; a stream of your own needs `tasks`")
        if self.tasks is not None and len({isinstance(t, str) for t in self.tasks}) > 1:
            raise ValueError("`tasks` mixes folder tasks (names) and hub tasks (mappings)")
        return self

    def located(self) -> StreamConfig:
        """The same with the folder's full path, so that a worker on another machine needs no variable."""
        folder = self.folder or os.environ.get("CL_BENCHMARK_DIR")
        needs_it = self.name in streams_package.ORDERS or self.tasks is not None
        if not needs_it or not folder:
            return self
        return self.model_copy(update={"folder": str(Path(folder).expanduser().resolve())})

    def build(self) -> Stream:
        """The stream itself. Raises ValueError where its data is missing or wrong."""
        limits = Limits(self.max_train, self.max_dev, self.max_test, self.dev_fraction, self.seed)
        folder = self.located().folder
        path = Path(folder) if folder else None
        if self.tasks is None:
            return streams_package.named_stream(self.name, limits, path)
        hub = [task for task in self.tasks if isinstance(task, HubTask)]
        if hub:
            return streams_package.hub_stream(self.name, hub, limits)
        if path is None:
            raise ValueError(f"stream {self.name!r}: its tasks are names, so set `folder`, or CL_BENCHMARK_DIR")
        return streams_package.folder_stream(self.name, path, [str(t) for t in self.tasks], limits)


class TrainingConfig(Section):
    """How each task is trained. The global batch is the unit; micro-batches and accumulation follow from it."""

    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    epochs: int = Field(1, ge=1)
    epochs_per_task: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="exceptions, by task name"
    )
    global_batch: int = Field(32, ge=1, description="examples a step, over all workers")
    micro_batch: int | None = Field(
        None, ge=1, description="examples a forward pass; by default global_batch / workers"
    )
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip: float | None = Field(1.0, gt=0, description="gradient norm at most; null: no clipping")
    schedule: Literal["constant", "linear"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1, description="share of a task's steps in which the rate rises from 0")


class ScalingConfig(Section):
    """The workers of one sequence. Sequences run side by side as far as the cluster reaches."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float | None = Field(None, ge=0, description="null: 1 where the cluster has GPUs, else 0")
    at_once: int | None = Field(
        None,
        ge=1,
        description="sequences side by side; null: as many as fit now. A number also waits for nodes to come",
    )
    max_failures: int = Field(2, ge=0, description="how often a crashed group of workers is started again")


class EvaluationConfig(Section):
    """How checkpoints are scored."""

    batch: int = Field(64, ge=1)
    where: Literal["auto", "inline", "async"] = Field(
        "auto", description="async: on resources that training leaves free; inline: in the training workers"
    )


class TrackingConfig(Section):
    """Where MLflow is. Without a URI: an sqlite store and an artifact folder in the output folder."""

    uri: str | None = None
    experiment: str | None = Field(None, description="MLflow experiment; default: the experiment's name")


class MethodEntry(MethodSpec):
    """A method of the experiment, with training settings of its own where it needs them (such as a learning rate)."""

    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """Accepts "ft+migu", {preset: ft+migu, training: …}, or {tuning: …, plugins: […]}."""
        if isinstance(value, str):
            value = {"preset": value}
        if isinstance(value, Mapping) and "preset" in value:
            rest = {k: v for k, v in value.items() if k != "preset"}
            return {**method_spec(value["preset"]).model_dump(), **rest}
        return value

    @field_validator("training")
    @classmethod
    def _is_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        TrainingConfig.model_validate(value)
        return value

    @property
    def spec(self) -> MethodSpec:
        """The method without its training settings."""
        return MethodSpec(name=self.name, tuning=self.tuning, plugins=self.plugins)


def _stream_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class RunConfig(Section):
    """An experiment: every method over every stream with every seed."""

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: ModelConfig = ModelConfig()
    streams: tuple[Annotated[StreamConfig, BeforeValidator(_stream_entry)], ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((42,), min_length=1)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    scaling: ScalingConfig = ScalingConfig()
    tracking: TrackingConfig = TrackingConfig()
    out: str = Field("runs", description="folder for checkpoints, journals, cells, reports and the MLflow store")

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        labels = [m.label for m in self.methods]
        if len(set(labels)) != len(labels):
            raise ValueError(f"methods: two are called the same ({', '.join(labels)}); give each a `name`")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is given twice")
        names = [s.name for s in self.streams]
        if len(set(names)) != len(names):
            raise ValueError(f"streams: two are called the same ({', '.join(names)})")
        for method in self.methods:
            check_batch(self.training_for(method), self.scaling.workers)
        return self

    def training_for(self, method: MethodEntry) -> TrainingConfig:
        """The training settings with the method's own on top."""
        return TrainingConfig.model_validate({**self.training.model_dump(), **method.training})


def check_batch(training: TrainingConfig, workers: int) -> None:
    """Raises ValueError where the global batch does not divide into equal micro-batches for the workers."""
    batch, micro = training.global_batch, training.micro_batch
    if batch % workers:
        raise ValueError(f"training.global_batch: {batch} does not divide by scaling.workers = {workers}")
    if micro and batch % (micro * workers):
        raise ValueError(
            f"training.micro_batch: global_batch = {batch} is not a multiple of micro_batch x workers = {micro} x {workers}"
        )


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_config(source: str | None = None, overrides: Sequence[str] = (), out: str | None = None) -> RunConfig:
    """The configuration from a recipe's name or a YAML file, with `a.b=c` overrides. Raises UserError."""
    values = _load_mapping(source or DEFAULT_RECIPE)
    for section, key in (("streams", "name"), ("methods", "preset")):
        if isinstance(values.get(section), list):
            values[section] = [{key: entry} if isinstance(entry, str) else entry for entry in values[section]]
    for override in overrides:
        _set(values, override)
    if out is not None:
        values["out"] = out
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{_where(source)}: {explain(error)}") from None
    return config.model_copy(update={"out": str(Path(config.out).expanduser().resolve())})


def _where(source: str | None) -> str:
    return f"recipe {source or DEFAULT_RECIPE}" if (source or DEFAULT_RECIPE) in recipe_names() else str(source)


def _load_mapping(source: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The YAML mapping, laid over the one that it `extends`."""
    is_file = source.endswith((".yaml", ".yml")) or "/" in source
    if not is_file and source not in recipe_names():
        raise UserError(unknown("recipe", source, recipe_names()) + "; or give a .yaml file")
    if source in seen:
        raise UserError(f"{source}: extends itself ({' -> '.join([*seen, source])})")
    path = Path(source).expanduser() if is_file else RECIPES / f"{source}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: malformed YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected a mapping of settings, found {type(values).__name__}")
    base = values.pop("extends", None)
    if base is not None:
        inherited = {k: v for k, v in _load_mapping(str(base), (*seen, source)).items() if k != "name"}
        values = _merge(inherited, values)
    values.setdefault("name", path.stem)
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = _merge(dict(merged[key]), value)
        merged[key] = value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; numbers in the path index lists. `streams.max_train` without an index means every stream."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: expected KEY=VALUE, such as training.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    _place(values, path.split("."), _number(value), override)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; a number was meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _place(node: Any, keys: list[str], value: Any, override: str) -> None:
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit():
            for item in node:
                _place(item, keys, value, override)
            return
        if int(key) >= len(node):
            raise UserError(f"--set {override}: there is no entry {key}; the list has {len(node)}")
        if rest:
            _place(node[int(key)], rest, value, override)
        else:
            node[int(key)] = value
    elif isinstance(node, dict):
        if rest:
            _place(node.setdefault(key, {}), rest, value, override)
        else:
            node[key] = value
    else:
        raise UserError(f"--set {override}: {key!r} is below a value, not a section")


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: where, what is wrong, what is allowed."""
    # of a choice such as "a name or a mapping", the complaint about the mapping says more
    errors = [e for e in error.errors() if e["type"] != "string_type"] or error.errors()
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if not _is_noise(part))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        keys = _keys_at(first["loc"])
        message = unknown("key", str(first["loc"][-1]), keys)
        where = ".".join(str(part) for part in first["loc"][:-1] if not _is_noise(part))
    elif first["type"] != "value_error" and not isinstance(first["input"], dict | list | tuple | BaseModel):
        message += f" (found {first['input']!r})"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where + ': ' if where else ''}{message}{more}"


def _is_noise(part: int | str) -> bool:
    return isinstance(part, str) and (part.endswith(("Config", "HubTask")) or part in ("str", "function-before"))


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `loc[:-1]` has."""
    section: Any = RunConfig
    for part in loc[:-1]:
        if isinstance(part, str) and part in getattr(section, "model_fields", {}):
            section = _section_of(section.model_fields[part].annotation)
    if section is MethodEntry and loc[-2] == "training":
        return list(TrainingConfig.model_fields)
    if "HubTask" in loc:
        return [f.name for f in dataclasses.fields(HubTask)]
    keys = list(getattr(section, "model_fields", {}))
    return [*keys, "preset"] if section is MethodEntry else keys


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
