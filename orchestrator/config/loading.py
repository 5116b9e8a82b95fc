"""Reading a configuration: YAML files, recipes that extend each other, `--set` overrides, and errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from methods import unknown
from orchestrator.config import DEFAULT_RECIPE
from orchestrator.config.experiment import RunConfig
from orchestrator.config.messages import explain
from orchestrator.config.yaml_text import read_yaml
from orchestrator.errors import UserError, as_given, shortened, shown
from orchestrator.redaction import has_uri_secret, redacted
from orchestrator.storage.places import resolved

# Ray sets it for the driver of a submitted job
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

RECIPES = Path(__file__).parent.parent / "recipes"


# The longest path of the schema has eight keys
MOST_KEYS = 20


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_config(source: str | None = None, overrides: Sequence[str] = (), out: str | None = None) -> RunConfig:
    """The configuration from a recipe's name or a YAML file, with `a.b=c` overrides. Raises UserError."""
    if source is None:
        source = DEFAULT_RECIPE
    values = _load_mapping(source)
    # before the overrides: `streams.max_train=9` needs a mapping to set a key in
    _write_out(values, "streams", "name")
    _write_out(values, "methods", "preset")
    for override in overrides:
        _apply_override(values, override)
    if out is not None:
        values["out"] = out
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        origin = source
        if source in recipe_names():
            origin = f"recipe {source}"
        raise UserError(f"{origin}: {explain(error)}") from None
    _check_out(config.out)
    _check_spaces(config)
    _check_secrets(config.model_dump(mode="json", exclude={"tracking": {"uri"}}))
    # a worker may have another working directory
    return config.model_copy(update={"out": resolved(config.out)})


def _check_out(out: str) -> None:
    """Raises UserError where results would be deleted together with what holds them."""
    is_relative = "://" not in out and not Path(out).expanduser().is_absolute()
    if is_relative and os.environ.get(JOB_VARIABLE):
        raise UserError(
            f"out: {out!r} would lie in the job's temporary copy of the working directory; give a full path that every node "
            "sees, such as --out /mnt/continual/runs"
        )


def _check_spaces(config: RunConfig) -> None:
    """Raises UserError where a method says what a search tries, and there is no search."""
    for method in config.methods:
        if method.space and config.search is None:
            raise UserError(
                f"methods: {method.label!r} has a `space`, which a search alone tries, and there is no `search` section; "
                "give its values to the method itself, or add the section"
            )


def _check_secrets(values: Any, path: str = "") -> None:
    """Raises UserError where an address has a password or a token in it: settings are part of journals and of MLflow's runs."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_secrets(value, f"{path}.{key}" if path else key)
    elif isinstance(values, list):
        for number, value in enumerate(values):
            _check_secrets(value, f"{path}.{number}")
    elif isinstance(values, str) and has_uri_secret(values):
        raise UserError(
            f"{path}: {redacted(values)} has a password or a token in it, and would be written with the results; give it by the "
            "environment, or in a file of ~/.config/fsspec"
        )


def _write_out(values: dict[str, Any], section: str, key: str) -> None:
    """Write an entry that is only a name as the mapping that it stands for."""
    entries = values.get(section)
    if not isinstance(entries, list):
        return
    written_out = []
    for entry in entries:
        if isinstance(entry, str):
            entry = {key: entry}
        written_out.append(entry)
    values[section] = written_out


def _load_mapping(source: str, extended_by: tuple[str, ...] = ()) -> dict[str, Any]:
    """The YAML mapping, laid over the one that it `extends`."""
    if source in extended_by:
        raise UserError(f"{source}: extends itself ({' -> '.join([*extended_by, source])})")
    path = _path_of(source)
    values = _read_yaml(source, path)
    base = values.pop("extends", None)
    if base is not None:
        inherited = _load_mapping(str(base), (*extended_by, source))
        # under the base's name its results would be taken for those of the base
        inherited.pop("name", None)
        values = _merge(inherited, values)
    values.setdefault("name", path.stem)
    return values


def _path_of(source: str) -> Path:
    if source.endswith((".yaml", ".yml")) or "/" in source:
        return _expanded(source, as_given(source))
    if source not in recipe_names():
        raise UserError(unknown("recipe", as_given(source), recipe_names()) + "; or give a .yaml file")
    return RECIPES / f"{source}.yaml"


def _expanded(path: str, where: str) -> Path:
    """The path with the home folder that `~` stands for. Raises UserError where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{where}: {error}") from None


def _read_yaml(source: str, path: Path) -> dict[str, Any]:
    where = as_given(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    # text that is not UTF-8, or a name with NUL
    except ValueError as error:
        raise UserError(f"{where}: cannot be read: {error}") from None
    values = read_yaml(text, where)
    # an empty file asks for all defaults
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a mapping of settings, found {type(values).__name__}")
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_are_sections = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        # a budget is one thing: merged with another it would ask for two units at once
        if both_are_sections and key != "budget":
            value = _merge(dict(merged[key]), value)
        merged[key] = value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; numbers in the path index lists. `streams.max_train` without an index means every stream."""
    path, equals, text = override.partition("=")
    option = f"--set {as_given(override)}"
    if not equals or not path:
        raise UserError(f"{option}: expected KEY=VALUE, such as training.lr=1e-4")
    keys = path.split(".")
    if len(keys) > MOST_KEYS:
        raise UserError(f"{option}: a path of {len(keys)} keys; allowed: up to {MOST_KEYS}")
    _set_value(values, keys, _number(read_yaml(text, option)), option)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; a number was meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set_value(node: Any, path: list[str], value: Any, option: str) -> None:
    """Set the value at a path below a node, making the sections that are missing on the way."""
    key, *rest = path
    if isinstance(node, list):
        _set_in_list(node, path, value, option)
    elif not isinstance(node, dict):
        raise UserError(f"{option}: {shown(key)} is below a value, not a section")
    elif rest:
        _set_value(node.setdefault(key, {}), rest, value, option)
    else:
        node[key] = value


def _set_in_list(node: list[Any], path: list[str], value: Any, option: str) -> None:
    key, *rest = path
    # not by `isdigit`, which takes superscripts for digits
    if not re.fullmatch("[0-9]+", key):
        for item in node:
            _set_value(item, path, value, option)
        return
    # of thousands of digits Python reads none
    index = int(key[:9])
    if index >= len(node):
        raise UserError(f"{option}: there is no entry {shortened(key, 20)}; the list has {len(node)}")
    if rest:
        _set_value(node[index], rest, value, option)
    else:
        node[index] = value
