"""Folders and files that are no stream's data and no model, places that nothing can be written to, and addresses of nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.orchestrator.mistakes.attempt import Mistake

SMALL_DATA = ("--set", "model={name: tiny-t5, max_source: 32, max_target: 4}", "--set", "methods=[ft]")
ROWS = [{"sentence": f"text {number}", "label": ("yes", "no")[number % 2]} for number in range(20)]
GOOD_TASK = {
    "train.json": json.dumps(ROWS).encode(),
    "test.json": json.dumps(ROWS).encode(),
    "labels.json": b'["yes", "no"]',
}
# What a file that should hold JSON may hold instead
NO_JSON = [
    b"",
    b"null",
    b"7",
    b"{",
    b"[" * 100_000,
    b"[" * 5_000 + b"]" * 5_000,
    b"\xff\xfe",
    b"9" * 5_000,
    b"\x00" * 50,
    b"NaN",
]
NO_JSON += [
    b'"zebra"',
    b"[7]",
    b"[null]",
    b"[[]]",
    b"{}",
    b"\xef\xbb\xbf[]",
    b'[{"sentence": 1}]',
    b'"\\ud800"',
    b"[" + b"9" * 5_000 + b"]",
]
NO_ROWS = [b"[]", b'[{"sentence": "a"}]', b'[{"label": "a"}]', b'[{"sentence": null, "label": "yes"}]']
NO_PLACES = [
    "",
    "nowhere",
    "/proc/self",
    "/dev/null",
    "a\0b",
    "x" * 300,
    "/".join(["x"] * 3_000),
    "\udcff",
    "~nobody/data",
]
NO_OUT = [
    "/proc/x",
    "/proc/1/x",
    "/dev/null",
    "/dev/null/x",
    "case.yaml",
    "case.yaml/x",
    "a\0b",
    "x" * 300,
    "/".join(["x"] * 3_000),
]
NO_OUT += ["/sys/x", "y/" + "x" * 256, "/dev/full/x", "\udcff\0"]
NO_URIS = ["zebra", "http://", "http://[::1", "http://a\0b", "http://127.0.0.1:99999"]
NO_URIS += [
    "sqlite://",
    "sqlite:////proc/x.db",
    "sqlite:///nowhere/x.db",
    "sqlite:///a\0b",
    "sqlite:///" + "x" * 300,
    "file:///x",
    "databricks",
]
NO_URIS += ["mysql+zebra://x", "mssql://", "postgresql", "mysql://[", "http://" + "x" * 5_000, "ftp://x", "sqlite:////"]
NO_URIS += [
    "http:///x",
    "HTTP://127.0.0.1:1",
    "http://127.0.0.1:zebra",
    "http://\udcff",
    " http://127.0.0.1:1",
    "sqlite:///case.yaml/x.db",
]
NO_MODELS = [
    "",
    "zz",
    "nobody/nothing",
    "a/b/c/d",
    "../x",
    "./",
    "/",
    "a b",
    "x" * 300,
    "x" * 10_000,
    "a\0b",
    "\udcff",
    "é/é",
    "case.yaml",
    "/dev/null",
    "~nobody/x",
]
NO_MODELS += [
    "tiny-t6",
    "-",
    "a/" + "b" * 200,
    "/proc/self",
    "/proc/self/mem",
    "a//b",
    "a/../b",
    "a/b@c",
    "http://x/y",
    ".",
    "..",
    "[red]",
]


def data_folders() -> list[Mistake]:
    """A folder of a task in which one file is missing, empty or holds something else; and folders that are none."""
    mistakes = []
    for file in GOOD_TASK:
        mistakes.append(_data({**GOOD_TASK, file: None}))
        for content in [*NO_JSON, *NO_ROWS]:
            # an empty set of labels says that answers are open
            if file == "labels.json" and content in (b"[]", b"\xef\xbb\xbf[]"):
                continue
            mistakes.append(_data({**GOOD_TASK, file: content}))
    for labels in (b'["a", "a"]', b'[""]', b'[" "]', b"[1, 2]", b'["yes"]', b'["zebra", "horse"]'):
        mistakes.append(_data({**GOOD_TASK, "labels.json": labels}))
    for folder in NO_PLACES:
        mistakes.append(_stream(f"{{name: mine, folder: {json.dumps(folder)}, tasks: [news]}}"))
    for task in ("", "..", "/", "nowhere", "x" * 300, "a\0b", "\ud800", "../TC/news"):
        mistakes.append(_stream(f"{{name: mine, folder: data, tasks: [{json.dumps(task)}]}}", GOOD_TASK))
    for name in ("", "..", "a\0b", "x" * 300, "a/b", "../x", "\ud800", "a\nb"):
        mistakes.append(_stream(f"{{name: {json.dumps(name)}, folder: data, tasks: [news]}}", GOOD_TASK))
    return mistakes


def _data(task: dict[str, bytes | None]) -> Mistake:
    return _stream("{name: mine, folder: data, tasks: [news]}", task)


def _stream(entry: str, task: dict[str, bytes | None] | dict[str, bytes] | None = None) -> Mistake:
    files = []
    for name, content in (task or {}).items():
        if content is not None:
            files.append((f"data/TC/news/{name}", content))
    return Mistake("data: folders", ("run", "--set", f"streams=[{entry}]", *SMALL_DATA), tuple(files))


def data_files() -> list[Mistake]:
    """A file of rows that is missing, empty, torn, or of another form than its name says; and names that no task can have."""
    mistakes = []
    good = b'{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n'
    for content in [
        *NO_JSON,
        b"{}",
        b'{"text": "a"}\n',
        good + b"{",
        good + b"\xff",
        good + b"[" * 100_000,
        good + b'{"text": ' + b"9" * 5_000 + b"}",
    ]:
        mistakes.append(_rows("rows.jsonl", content))
        mistakes.append(_rows("rows.jsonl.gz", content))
        mistakes.append(_rows("rows.parquet", content))
    for content in (
        b"",
        b"\n",
        b"text\n",
        b"label\nyes\n",
        b"\xff\n",
        b"a,b\n1,2\n",
        b"\x00",
        b"text,label\n" + b"x" * 200_000 + b",yes\n",
        b'text,label\n"a',
    ):
        mistakes.append(_rows("rows.csv", content))
    for train in (
        "",
        "nowhere.jsonl",
        "rows.zebra",
        "a\0b.jsonl",
        "x" * 300 + ".jsonl",
        "http://127.0.0.1:1/x.jsonl",
        "zebra://x.jsonl",
        "\udcff.jsonl",
        "/proc/self/mem.csv",
        "*.jsonl",
    ):
        mistakes.append(_rows(train))
    for task in ("", "a\0b", "x" * 300, "a/b", "..", "../x", "\ud800", "a\nb", "/"):
        mistakes.append(_rows("rows.jsonl", good, task=task))
    return mistakes


def _rows(train: str, content: bytes | None = None, task: str = "news") -> Mistake:
    entry = (
        f"{{name: mine, tasks: [{{name: {json.dumps(task)}, train: {json.dumps(train)}, test: {json.dumps(train)}}}]}}"
    )
    files: tuple[tuple[str, bytes], ...] = ()
    if content is not None:
        files = ((train, content),)
    return Mistake("data: files of rows", ("run", "--set", f"streams=[{entry}]", *SMALL_DATA), files)


def output_folders() -> list[Mistake]:
    """A place for the output that nothing can be written to."""
    mistakes = []
    for out in NO_OUT:
        for command in (("run",), ("run", "--set", f"out={json.dumps(out)}")):
            arguments = (*command, "--out", out) if len(command) == 1 else command
            mistakes.append(Mistake("out", arguments, (("case.yaml", b""),)))
    for command in ("report", "evaluate", "prune", "ui"):
        for out in NO_OUT:
            name = () if command == "ui" else ("experiment",)
            mistakes.append(Mistake(f"out of {command}", (command, *name, "--out", out), (("case.yaml", b""),)))
    return mistakes


def addresses() -> list[Mistake]:
    """An address of a tracking store that is none, or at which nothing answers."""
    return [
        Mistake("URIs", ("run", "--set", f"tracking.uri={json.dumps(uri)}"), (("case.yaml", b""),)) for uri in NO_URIS
    ]


def experiment_names() -> list[Mistake]:
    """A name that would lead out of the output folder, or that no folder can have."""
    mistakes = []
    for name in (
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/x",
        "a\0b",
        "x" * 256,
        "x" * 5_000,
        "-x",
        "\ud800",
        "é",
        "a\nb",
        " a",
        "a ",
    ):
        mistakes.append(Mistake("names", ("run", "--set", f"name={json.dumps(name)}")))
    for name in ("a/b", "a\0b", "x" * 300, "é\n", "\ud800", "\u202e"):
        mistakes.append(
            Mistake("names of methods", ("run", "--set", f"methods=[{{preset: ft, name: {json.dumps(name)}}}]"))
        )
    return mistakes


def model_names() -> list[Mistake]:
    """A name of a model that is neither built in, nor a folder, nor anything that the hub could have."""
    mistakes = []
    for name in NO_MODELS:
        mistakes.append(
            Mistake("models: names", ("run", "--set", f"model.name={json.dumps(name)}"), (("case.yaml", b""),))
        )
    for overrides in (
        "{zebra: 1}",
        "{d_model: 0}",
        "{d_model: -8}",
        "{d_model: zebra}",
        "{num_layers: 1.5}",
        "{d_ff: null}",
    ):
        mistakes.append(Mistake("models: overrides", ("run", "--set", f"model.overrides={overrides}")))
    for overrides in (
        "{num_layers: -1}",
        "{vocab_size: 0}",
        "{num_heads: 0}",
        "{dropout_rate: 7}",
        "{d_model: [1]}",
        "{model_type: zebra}",
        "{d_model: .nan}",
        "{model_type: bert}",
        "{num_layers: 100000}",
    ):
        mistakes.append(Mistake("models: overrides", ("run", "--set", f"model.overrides={overrides}")))
    for revision in ("a\0b", "x" * 5_000, "..", "é"):
        setting = ("--set", f"model={{name: a/b, revision: {json.dumps(revision)}}}")
        mistakes.append(Mistake("models: names", ("run", *setting)))
    return mistakes


def model_folders(saved: Path) -> list[Mistake]:
    """A model's folder in which one file is missing, torn, or another's; `saved` holds a whole one."""
    good = {path.name: path.read_bytes() for path in sorted(saved.iterdir())}
    mistakes = [_model({})]
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        without = dict(good)
        del without[file]
        mistakes.append(_model(without))
        for content in NO_JSON:
            mistakes.append(_model({**good, file: content}))
    weights = good["model.safetensors"]
    for length in (4, 8, 100, len(weights) // 2, len(weights) - 1):
        mistakes.append(_model({**good, "model.safetensors": weights[:length]}))
    mistakes.append(_model({**good, "model.safetensors": b"\xff" * 8 + weights[8:]}))
    mistakes.append(_model({**good, "model.safetensors": b"\x00" * len(weights)}))
    mistakes.append(_model({**good, "model.safetensors": b"\x02" + b"\x00" * 7 + b"{}"}))
    config = json.loads(good["config.json"])
    changes: list[dict[str, object]] = [
        {"model_type": "zebra", "architectures": ["ZebraForCausalLM"]},
        {"model_type": 7},
        {"model_type": None},
        {"d_model": 0},
        {"d_model": -8},
        {"d_model": "zebra"},
        {"d_model": 10**12},
        {"num_heads": 0},
        {"vocab_size": 1},
        {"d_ff": 7_777},
        {"auto_map": {"AutoConfig": "zebra.Zebra"}, "model_type": "zebra"},
        {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
        {"model_type": "vit", "architectures": ["ViTForImageClassification"]},
    ]
    for change in changes:
        mistakes.append(_model({**good, "config.json": json.dumps({**config, **change}).encode()}))
    return mistakes


def _model(files: dict[str, bytes]) -> Mistake:
    # a folder of its own: what a process has found in one it does not look for again
    folder = "model-" + hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:8]
    placed = [(f"{folder}/.keep", b"")]
    for name, content in files.items():
        placed.append((f"{folder}/{name}", content))
    settings = ("--set", f"model={{name: ./{folder}, max_source: 32, max_target: 4}}", "--set", "methods=[ft]")
    return Mistake(
        "models: folders",
        ("run", "--set", "streams=[{name: embedded, first: 1, max_train: 8, max_test: 4}]", *settings),
        tuple(placed),
    )
