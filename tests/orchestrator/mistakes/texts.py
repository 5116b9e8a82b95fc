"""Files that are no YAML, or no configuration; and `--set` options that lead nowhere."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.orchestrator.mistakes.attempt import Mistake

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join([f'*{chr(97 + level)}'] * 9)}]\n" for level in range(9)
)
FILES: dict[str, list[bytes]] = {
    "deep": [
        b"streams: " + b"[" * 100_000,
        b"[" * 3_000 + b"]" * 3_000,
        b"streams: " + b"[" * 2_000 + b"]" * 2_000,
        b"{a: " * 3_000 + b"1" + b"}" * 3_000,
        b"- " * 5_000 + b"a",
        b"".join(b" " * level + b"a:\n" for level in range(1_500)),
        b"methods: " + b"[" * 400 + b"]" * 400,
    ],
    "anchors": [
        BOMB.encode(),
        BOMB.encode() + b"streams: *i\n",
        BOMB.encode() + b"model: {overrides: {a: *i}}\n",
        b"streams: &a [*a]\n",
        b"streams: &a {name: *a}\n",
        b"streams: *nowhere\n",
        b"<<: *nowhere\n",
        b"model: &m {name: tiny-t5}\nstreams: [*m]\n",
        b"streams: [embedded]\n<<: [1, 2]\n",
        b"<<: 7\n",
        b"a: &a {<<: *a}\n",
    ],
    "keys": [
        b"streams: [embedded]\nstreams: [embedded]\n",
        b"model: {name: tiny-t5, name: tiny-bert}\n",
        b"? [a, b]\n: 1\n",
        b"? {a: b}\n: 1\n",
        b"1: 2\n",
        b"null: 1\n",
        b"2024-01-01: 1\n",
        b"? !!set {a}\n: 1\n",
        b"extends: embedded\nextends: embedded\n",
        b"=: 1\n",
        b"true: 1\n",
    ],
    "encodings": [
        b"\xff\xfe\x00",
        b"name: \xe9\n",
        b"\xff" * 400,
        "name: Ä\n".encode("utf-16"),
        "name: Ä\n".encode("utf-32"),
        b"\x00" * 100,
        b"name: a\x00b\n",
        b"name: \x07\n",
        b"\xef\xbb\xbfzebra: 1\n",
        b'name: "\\ud800"\n',
        b"\x80\x81\x82",
    ],
    "syntax": [
        b"streams:\n\t- embedded\n",
        b"a: b: c\n",
        b"{",
        b"[}",
        b"'",
        b'"\\q"',
        b"%YAML 9.9\n---\na: 1\n",
        b"%TAG ! x\n",
        b"--- a\n--- b\n",
        b"a: 1\n---\nb: 2\n",
        b"...\n...\n---\n---\n",
        b"@",
        b"`",
        b"a: |\n b\n  c\n d: [\n",
        b"&" * 50,
        b"zebra" * 20_000,
        b"? " * 600,
    ],
    "tags": [
        b'!!python/object/apply:os.system ["touch pwned"]\n',
        b"streams: !!python/name:os.system\n",
        b"model: !zebra {}\n",
        b"name: !!int zebra\n",
        b"name: !!float zebra\n",
        b"name: !!bool zebra\n",
        b"name: !!timestamp zebra\n",
        b"name: !!timestamp 2024-99-99\n",
        b"name: 2024-99-99\n",
        b"name: !!binary zebra=\n",
        b'name: !!binary "\\u00e9"\n',
        b"streams: !!set {embedded}\n",
        b"streams: !!omap [a: 1]\n",
        b"streams: !!omap 7\n",
        b"name: !!null zebra\n",
        b'seeds: [!!int ""]\n',
        b"seeds: [0x]\n",
        b"seeds: [0b2]\n",
        b"seeds: [99:99:99]\n",
        b"name: !!map 7\n",
        b"name: !!seq 7\n",
        b"name: !!str [7]\n",
        b"seeds: [0o9, 0_, ._]\n",
    ],
    "values": [
        b"null\n",
        b"7\n",
        b"zebra\n",
        b"[]\n",
        b"[{streams: [embedded]}]\n",
        b"true\n",
        b"2024-01-01\n",
        b"streams: [embedded]\nmethods: [ft]\nseeds: [" + b"9" * 5_000 + b"]\n",
        b"seeds: 0x" + b"f" * 5_000 + b"\n",
        b"streams: null\nmethods: null\n",
        b"streams: [null]\n",
        b"methods: [null]\nstreams: [embedded]\n",
        b"",
        b"# nothing\n",
        b"extends: nowhere\n",
        b"extends: case.yaml\n",
        b"extends: [embedded]\n",
        b"extends: {a: 1}\n",
        b"extends: " + b"x" * 300 + b".yaml\n",
        b'extends: "a\\0.yaml"\n',
        b"extends: /proc/self/mem.yaml\n",
        b"extends: " + b"9" * 5_000 + b"\n",
        b"extends: 7\n",
        b'extends: ""\n',
        b"extends: .yaml\n",
        b"extends: ./\n",
        b"extends: embedded\nname: " + b"x" * 300 + b"\n",
        b"extends: embedded\nstreams: [" + b"embedded, " * 3_000 + b"embedded]\n",
        b"extends: embedded\nmethods: [" + b"{name: " + b"y" * 300 + b", tuning: full}]\n",
        b"extends: embedded\n" + b"".join(b"k%d: 1\n" % number for number in range(5_000)),
    ],
}
NAMES = ["nowhere", "", ".", "..", "/", "a\0b.yaml", "x" * 300, "x" * 300 + ".yaml", "é.yaml", "nowhere/x.yaml", "./"]
NAMES += [
    "~nobody/x.yaml",
    "/dev/full/x.yaml",
    "/proc/self/mem",
    "\udcff.yaml",
    "embedded.yml",
    "[",
    "-",
    "[red]",
    "\n",
]
PATHS = ["name.x", "seeds.0.x", "seeds.99", "seeds.-1", "seeds." + "9" * 5000, "streams.x.y.z", "streams.0.name.x"]
PATHS += ["out.x.y", "..", ".", "a.", ".a", "training..lr", "training.lr.x", "methods.0", "methods.7.name", "é", "²"]
PATHS += ["streams.²", "streams.0." + "x" * 5000, ".".join("a" * 3000), "model.overrides." + ".".join("a" * 500)]
PATHS += [
    "methods.١",
    "seeds.١٢",
    "search.x",
    "evaluation.during.x.y",
    "training.budget",
    "__class__",
    "streams.0.__class__",
]
VALUES = [
    "1",
    "{",
    "[",
    "zebra",
    "9" * 5000,
    "[" * 3000 + "]" * 3000,
    '"\\0"',
    "!!bool zebra",
    "!!python/name:os.system",
]
VALUES += [
    "&a [*a]",
    "2024-99-99",
    "*a",
    "@",
    "{a: 1, a: 2}",
    "\udcff",
    "x" * 10_000,
    "é",
    "|",
    ">",
    "%",
    "- - -",
    "? :",
]
WITHOUT_VALUE = ["", "=", "==", "training.lr", "=1", "\0", "x" * 5000, "training.lr:1", " ", "{}", "\udcff", "\n\n\n"]


def yaml_files() -> list[Mistake]:
    """A file of each kind that YAML, or the configuration, cannot read."""
    mistakes = []
    for kind, contents in FILES.items():
        for content in contents:
            mistakes.append(Mistake(f"YAML files: {kind}", ("run", "case.yaml"), (("case.yaml", content),)))
    for name in NAMES:
        mistakes.append(Mistake("YAML files: names", ("plan", name)))
    return mistakes


def torn_files() -> SearchStrategy[Mistake]:
    """A configuration of which bytes were lost or changed to what YAML or the schema refuse, and arbitrary bytes."""

    def torn(content: bytes) -> Mistake:
        # a key that no configuration has, so that what is readable is refused all the same
        return Mistake("YAML files: drawn", ("run", "case.yaml"), (("case.yaml", b"zebra: 1\n" + content),))

    structure = st.text("[]{}:,-&*!|>'\"%@#? \t\nab01", min_size=1, max_size=60).map(str.encode)
    nested = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    ).map(lambda value: b"b: " + json.dumps(value).encode())
    return (st.binary(min_size=1, max_size=60) | structure | nested).map(torn)


def overrides() -> SearchStrategy[Mistake]:
    """An override whose path leads nowhere, or whose value no YAML has."""
    nowhere = st.tuples(st.sampled_from(PATHS), st.sampled_from(VALUES)).map("=".join)
    unreadable = st.sampled_from(VALUES[1:]).map(lambda value: f"training.lr={value}")
    incomplete = st.sampled_from(WITHOUT_VALUE)
    unknown = st.text("abcxyz.", min_size=1, max_size=12).map(lambda path: f"zebra{path}=1")
    return (nowhere | unreadable | incomplete | unknown).map(
        lambda override: Mistake("--set", ("run", "--set", override))
    )
