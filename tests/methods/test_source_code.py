"""The code of a part in cache keys: a user's by its source, ours by its version."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from methods import METHODS, Context, Method, method_class, method_spec, source_of
from methods.masking.migu import Migu
from methods.source_code import described_code
from methods.stack import Stack

PLUGIN = '''
"""A plug-in."""
import json
from methods import Card, Method, Settings
from their_lab.tools import scale
from . import constants


class Noise(Method):
    """Adds noise."""

    Settings = Settings
    card = Card(summary="noise")

    def after_optimizer_step(self, model):
        # how much
        return scale(1.0) * constants.FACTOR
'''
FILES = {
    "their_lab/__init__.py": "from their_lab import unused\n",
    "their_lab/unused.py": "X = 1\n",
    "their_lab/noise.py": PLUGIN,
    "their_lab/tools.py": "import beside\n\ndef scale(x):\n    return beside.double(x)\n",
    "their_lab/constants.py": "FACTOR = 2\n",
    "beside.py": "def double(x):\n    return 2 * x\n",
}
Fields = dict[str, Any]


@pytest.fixture
def fields_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fields]]:
    """Gives the cache fields of `their_lab.noise.Noise`, imported anew, after files were written over those above."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in list(sys.modules):
            if name.split(".")[0] in ("their_lab", "beside"):
                del sys.modules[name]

    def make(name: str = "their_lab.noise.Noise", **changes: str) -> Fields:
        for file, text in {**FILES, **changes}.items():
            path = tmp_path / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        forget()
        stack = method_spec({"plugins": [name]}).build(Context(0))
        # in a first task a masking plug-in does nothing, and has no fields
        fields: Fields = stack.cache_fields(1)["parts"][1]
        return fields

    yield make
    forget()


def test_a_user_s_part_is_known_by_its_module_and_what_that_imports(fields_with: Callable[..., Fields]) -> None:
    before = fields_with()
    assert source_of(method_class("their_lab.noise.Noise")).modules == (
        "beside", "their_lab.constants", "their_lab.noise", "their_lab.tools",
    )  # fmt: skip
    assert fields_with() == before
    hashes = {before["source hash"]}
    for changes in (
        {"their_lab/noise.py": PLUGIN.replace("scale(1.0)", "scale(1000.0)")},
        {"their_lab/tools.py": FILES["their_lab/tools.py"].replace("(x)\n", "(-x)\n")},
        {"their_lab/constants.py": "FACTOR = 3\n"},
        {"beside.py": FILES["beside.py"].replace("2", "3")},
    ):
        hashes.add(fields_with(**changes)["source hash"])
    assert len(hashes) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"their_lab/noise.py": PLUGIN.replace("# how much", "# how very much")},
        {"their_lab/noise.py": PLUGIN.replace("Adds noise.", "Adds much noise.").replace("\n\n\n", "\n\n\n\n")},
        {"their_lab/unused.py": "X = 2\n"},
    ],
)
def test_what_is_said_about_it_and_what_it_does_not_use_change_nothing(
    changes: dict[str, str], fields_with: Callable[..., Fields]
) -> None:
    before = fields_with()
    assert fields_with(**changes) == before


def test_a_base_class_of_another_package_counts_and_a_library_does_not(
    fields_with: Callable[..., Fields], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    for name in ("their_base", "a_library"):
        (installed / name).mkdir(parents=True)
    monkeypatch.syspath_prepend(str(installed))
    derived = "import a_library\nfrom their_base import Base\n\nclass Noise(Base): ...\n"

    def hash_with(base: str, library: str) -> str:
        (installed / "their_base" / "__init__.py").write_text(
            f"from methods import Method\nclass Base(Method):\n    {base}\n"
        )
        (installed / "a_library" / "__init__.py").write_text(library)
        for name in ("their_base", "a_library"):
            sys.modules.pop(name, None)
        found: str = fields_with(**{"their_lab/noise.py": derived})["source hash"]
        return found

    before = hash_with("a = 1", "b = 1")
    assert hash_with("a = 1", "b = 2") == before
    assert hash_with("a = 2", "b = 1") != before
    for name in ("their_base", "a_library"):
        sys.modules.pop(name, None)


def test_of_our_own_classes_their_version_counts(
    fields_with: Callable[..., Fields], monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = {"their_lab/noise.py": "from methods.masking.migu import Migu\n\nclass Noise(Migu): ...\n"}
    before = fields_with(**derived)["source hash"]
    plain = method_spec("ft+migu").build(Context(0))
    assert "card version" not in plain.cache_fields(1)["parts"][1], "the first version has renamed no checkpoint"
    monkeypatch.setattr(Migu, "card", replace(Migu.card, version=2))
    assert plain.cache_fields(1)["parts"][1]["card version"] == 2
    assert plain.cache_fields(0) == {"parts": plain.cache_fields(0)["parts"][:1]}, "nothing of it counts before it acts"
    assert fields_with(**derived)["source hash"] != before
    assert described_code(Migu) == "version 2"


@pytest.mark.parametrize("name", METHODS)
def test_no_part_of_ours_is_known_by_its_source(name: str) -> None:
    assert described_code(METHODS[name]) == f"version {METHODS[name].card.version}"


def test_a_user_s_tuning_method_decides_the_initial_model_too(fields_with: Callable[..., Fields]) -> None:
    tuning = "from methods.full import Full\n\nclass Noise(Full):\n    size = 1\n"
    found = []
    for text in (tuning, tuning.replace("1", "2")):
        with pytest.raises(ValueError, match="is a tuning method, not a plug-in"):
            fields_with(**{"their_lab/noise.py": text})
        stack: Stack = method_spec({"tuning": "their_lab.noise.Noise"}).build(Context(0))
        found.append(stack.initial_cache_fields())
    assert found[0]["source hash"] != found[1]["source hash"]


def test_a_part_without_a_source_is_known_by_its_version(
    fields_with: Callable[..., Fields], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields_with()
    noise = method_class("their_lab.noise.Noise")
    monkeypatch.setattr(type(sys.modules["their_lab.noise"].__loader__), "get_source", lambda loader, name: None)
    # asked for the first time: what is known of a class is not read again
    made_in_memory: type[Method] = type("Noise", (noise,), {"__module__": "their_lab.noise"})
    found = source_of(made_in_memory)
    assert found.missing == ("their_lab.noise",)
