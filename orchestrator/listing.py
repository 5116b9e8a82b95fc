"""What can be named in a configuration, for `orchestrator list`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from methods import PRESETS, PUBLISHED, REFERENCE_RUNS, Card, Method, TuningMethod, registered_methods
from methods.seam.card import Tried
from orchestrator.config.loading import load_config, recipe_names
from orchestrator.evaluation.scorers import SCORERS
from orchestrator.models.source import DESCRIPTIONS as MODELS
from streams import DESCRIPTIONS as STREAMS
from streams import FROM_LIKELIHOOD, SCENARIOS, resolve_source, stream_sizes
from streams.scorer_names import LIBRARIES, NEED_LABELS

Row = dict[str, Any]


def methods() -> list[Row]:
    """Tuning methods and plug-ins, then the presets made of them."""
    rows = []
    for name, method in registered_methods().items():
        rows.append(_part(name, method))
    for name, preset in PRESETS.items():
        rows.append(_preset(name, preset))
    return rows


def _part(name: str, method: type[Method]) -> Row:
    card = method.card
    kind = "plug-in"
    searched = []
    if issubclass(method, TuningMethod):
        kind = "tuning method"
        # training settings first: they are searched for every method
        for setting, tried in card.training_space.items():
            default = ""
            if setting == "lr":
                default = f" (default {card.default_lr:g})"
            searched.append(f"{setting} {_tried(tried)}{default}")
    for setting, tried in card.space.items():
        searched.append(f"{setting} {_tried(tried)}{_condition(card, setting)}")
    return {
        "name": name,
        "kind": kind,
        "what": card.summary,
        "needs": ", ".join(card.needs),
        "extra memory": card.memory,
        "arXiv": card.paper,
        "searched": "; ".join(searched),
        "published": "",
    }


def _tried(tried: Tried) -> str:
    """Values as `0.1 0.3`, a range as `1e-05 to 0.003`."""
    if isinstance(tried, Mapping):
        return f"{tried['low']:g} to {tried['high']:g}"
    return " ".join(map(str, tried))


def _condition(card: Card, setting: str) -> str:
    """The kinds of a method that alone have a setting, as ` (rule ties, dare)`."""
    kinds = []
    for other, values in card.space_only_with.get(setting, {}).items():
        kinds.append(f"{other} {', '.join(map(str, values))}")
    if not kinds:
        return ""
    return f" ({'; '.join(kinds)})"


def _preset(name: str, preset: Mapping[str, Any]) -> Row:
    what = " + ".join(map(_setting, [preset["tuning"], *preset.get("plugins", [])]))
    if "reference" in preset:
        what += f" ({REFERENCE_RUNS[preset['reference']].sentence})"
    published = []
    if name in PUBLISHED:
        for key in ("lr", "global_batch"):
            published.append(f"{key} {PUBLISHED[name][key]}")
    # every row has the same keys, also in JSON
    empty = dict.fromkeys(("needs", "extra memory", "arXiv", "searched"), "")
    return {"name": name, "kind": "preset", "what": what, **empty, "published": ", ".join(published)}


def _setting(part: str | Mapping[str, Any]) -> str:
    """A part of a preset, as `migu` or `merge (rule ties)`."""
    if isinstance(part, str):
        return part
    settings = []
    for key, value in part.items():
        if key != "name":
            settings.append(f"{key} {value}")
    return f"{part['name']} ({', '.join(settings)})"


def streams() -> list[Row]:
    """The streams with their sources, their tasks and the rows of these; null where the published number is not known."""
    rows = []
    for name, description in STREAMS.items():
        sizes = stream_sizes(name)
        source, _, _ = resolve_source(name, {})
        rows.append(
            {
                "name": name,
                "source": source,
                "tasks": list(sizes),
                "train": [train for train, _ in sizes.values()],
                "test": [test for _, test in sizes.values()],
                "what": description,
            }
        )
    return rows


def scenarios() -> list[Row]:
    """What makes another stream of a stream, with the settings that each needs and those that it may have."""
    rows = []
    for name, scenario in SCENARIOS.items():
        needed = []
        optional = []
        for key, field in scenario.model_fields.items():
            if field.is_required():
                needed.append(key)
            elif field.default is None:
                optional.append(f"[{key}]")
            # each has its own name as a default
            elif key != "name":
                optional.append(f"[{key} {field.default}]")
        settings = " ".join([*needed, *optional])
        rows.append({"name": name, "what": scenario.summary, "settings": settings, "arXiv": scenario.paper})
    return rows


def scorers() -> list[Row]:
    """How answers may be scored."""
    rows = []
    for name, scorer in SCORERS.items():
        # the first sentence of what the class says of itself, on one line
        said = " ".join((scorer.__doc__ or "").split())
        needs = []
        if name in NEED_LABELS:
            needs.append("a label set")
        if name in FROM_LIKELIHOOD:
            needs.append("a model that writes")
        if name in LIBRARIES:
            needs.append(f"the package {LIBRARIES[name][1]}")
        what = said.split(". ")[0].removesuffix(".")
        rows.append(
            {"name": name, "what": what, "unit": scorer.unit, "better": scorer.better, "needs": ", ".join(needs)}
        )
    return rows


def models() -> list[Row]:
    """The built-in models."""
    rows = []
    for name, description in MODELS.items():
        rows.append({"name": name, "what": description})
    return rows


def recipes() -> list[Row]:
    """The recipes that come with the package."""
    rows = []
    for name in recipe_names():
        config = load_config(name)
        rows.append(
            {
                "name": name,
                "model": config.model.name,
                "streams": ", ".join(stream.name for stream in config.streams),
                "methods": ", ".join(method.label for method in config.methods),
            }
        )
    return rows


# Called when asked for: the recipes alone are as many files to read and check
LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "methods": methods,
    "streams": streams,
    "scenarios": scenarios,
    "scorers": scorers,
    "models": models,
    "recipes": recipes,
}


def print_listing(what: str, console: Console) -> None:
    """Print what there is; of methods, the parts by kind, what a search tries of them, and the presets."""
    rows = LISTINGS[what]()
    if what == "methods":
        _print_methods(rows, console)
    elif what == "streams":
        _print_streams(rows, console)
    else:
        console.print(_table(rows, list(rows[0])))


def _print_methods(rows: list[Row], console: Console) -> None:
    by_kind: dict[str, list[Row]] = defaultdict(list)
    searched = []
    for row in rows:
        by_kind[row["kind"]].append(row)
        # a table of its own: beside the other columns it would leave none of them room
        if row["searched"]:
            searched.append(row)
    columns = ["name", "what", "needs", "extra memory", "arXiv"]
    console.print(_table(by_kind["tuning method"], columns, "tuning methods: one a method"))
    console.print(_table(by_kind["plug-in"], columns, "plug-ins: any number, in order"))
    console.print(_table(searched, ["name", "searched"], "what a search tries"))
    title = "presets; `training: published` asks for the last column"
    console.print(_table(by_kind["preset"], ["name", "what", "published"], title))


def _print_streams(rows: list[Row], console: Console) -> None:
    shown = []
    for row in rows:
        counts = {split: _total(row[split]) for split in ("train", "test")}
        shown.append({**row, **counts, "no.": len(row["tasks"]), "tasks": " ".join(row["tasks"])})
    title = "streams; rows as published, `?` where some are not known: `orchestrator data NAME` counts what is there"
    console.print(_table(shown, ["name", "source", "no.", "train", "test", "what"], title))
    console.print(_table(shown, ["name", "tasks"], "tasks, in order"))


def _total(rows: list[int | None]) -> str:
    """The rows of all tasks; of some the number may not be known."""
    known = [count for count in rows if count is not None]
    total = f"{sum(known):,}"
    if len(known) < len(rows):
        total += " + ?"
    return total


def _table(rows: list[Row], columns: list[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # a name is typed and a paper's number is searched for: neither must be broken over lines
        table.add_column(column, no_wrap=column in ("name", "arXiv", "train", "test"), overflow="fold")
    for row in rows:
        table.add_row(*map(str, map(row.get, columns)))
    return table
