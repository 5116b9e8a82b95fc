"""Parts by name: our own, those of installed packages, and any class by its dotted path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from methods import METHODS, Context, MethodSpec, full_name, method_class, method_spec, registered_methods, registry
from methods.masking.migu import Migu

SHRINK = """
from pydantic import Field
from methods import Card, Method, Settings

class ShrinkSettings(Settings):
    strength: float = Field(0.1, ge=0)

class Shrink(Method):
    Settings = ShrinkSettings
    card = Card(summary="shrinks")

class NoMethod: ...

class WrongSettings(Method):
    Settings = dict
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of a user's, importable: its name."""
    folder = tmp_path / "their_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "parts.py").write_text(SHRINK)
    (folder / "broken.py").write_text("import their_package\nraise RuntimeError('it breaks\\nwith a second line')\n")
    (folder / "lacking.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "their_package"
    for name in [name for name in sys.modules if name.startswith("their_package")]:
        del sys.modules[name]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes entry points appear as those of installed packages."""

    def make(**values: str) -> None:
        found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        registry.installed_methods.cache_clear()

    yield make
    registry.installed_methods.cache_clear()


@pytest.mark.parametrize("colon", [".", ":"])
def test_a_class_is_found_by_its_dotted_path(package: str, colon: str) -> None:
    spec = method_spec({"tuning": "full", "plugins": [{"name": f"{package}.parts{colon}Shrink", "strength": 0.5}]})
    assert spec.plugins[0].name == "their_package.parts.Shrink", "both ways to write it are one name"
    assert spec.plugins[0].settings == {"strength": 0.5}
    assert spec.label == "full+their_package.parts.Shrink"
    assert spec.types[1].__name__ == "Shrink"
    again = MethodSpec.model_validate(spec.model_dump())
    assert again == spec


def test_its_full_name_goes_into_the_cache_fields(package: str, install: Callable[..., None]) -> None:
    install(shrink=f"{package}.parts:Shrink")
    by_name = method_spec({"plugins": ["shrink"]}).build(Context(0)).cache_fields(0)
    by_path = method_spec({"plugins": [f"{package}.parts.Shrink"]}).build(Context(0)).cache_fields(0)
    assert by_name == by_path
    assert by_name["parts"][1].items() >= {"name": "their_package.parts.Shrink", "strength": 0.1}.items()


def test_our_own_class_by_its_path_has_the_same_cache_fields_as_by_its_name() -> None:
    assert full_name("methods.masking.migu.Migu") == full_name("migu") == "migu"
    assert method_class("methods.masking.migu:Migu") is Migu


def test_an_installed_package_offers_parts_by_name(package: str, install: Callable[..., None]) -> None:
    install(shrink=f"{package}.parts:Shrink")
    assert method_class("shrink").card.summary == "shrinks"
    assert list(registered_methods()) == [*METHODS, "shrink"]
    assert method_spec({"plugins": ["shrink"]}).label == "full+shrink"


def test_a_name_of_ours_cannot_be_taken(package: str, install: Callable[..., None]) -> None:
    install(migu=f"{package}.parts:Shrink")
    with pytest.raises(ValueError, match=r"'migu'.*their_package.parts:Shrink.*rename it"):
        method_class("ewc")


def test_two_packages_cannot_offer_one_name(
    package: str, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [EntryPoint("shrink", f"{package}.{module}:Shrink", "") for module in ("parts", "other")]
    monkeypatch.setattr(registry, "entry_points", lambda group: both)
    registry.installed_methods.cache_clear()
    with pytest.raises(ValueError, match=r"stands for both their_package.parts:Shrink and their_package.other:Shrink"):
        method_class("ewc")
    monkeypatch.setattr(registry, "entry_points", lambda group: [both[0], both[0]])
    registry.installed_methods.cache_clear()
    assert list(registry.installed_methods()) == ["shrink"], "a package that is seen twice says the same twice"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_package.parts.Shrnk", "their_package.parts.Shrnk: unknown class .* Did you mean 'Shrink'"),
        ("their_package.parts.NoMethod", "it is no class that derives from methods.Method"),
        ("their_package.parts.WrongSettings", "`Settings` must be a class that derives from methods.Settings"),
        ("their_package.prts.Shrink", "no module 'their_package.prts'; install its package, or .* PYTHONPATH"),
        ("their_pckage.parts.Shrink", "no module 'their_pckage'"),
        ("their_package.broken.Shrink", "importing their_package.broken failed: RuntimeError: it breaks$"),
        ("their_package.lacking.Shrink", "importing their_package.lacking failed: No module named 'a_package_that"),
        (".Shrink", "expected my_package.my_module.MyPlugin"),
        ("mgiu", "unknown method part 'mgiu'. Did you mean 'migu'"),
    ],
)
def test_what_cannot_be_used_is_one_line(package: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        method_class(name)
    assert "\n" not in str(caught.value)


def test_a_file_where_the_user_stands_is_found(tmp_path: Path) -> None:
    """As a console script runs, whose path does not begin with the present folder."""
    (tmp_path / "my_part.py").write_text(SHRINK)
    root = str(Path(__file__).parent.parent.parent)
    code = (
        f"import sys; sys.path[0] = {root!r}\nfrom methods import method_class; print(method_class('my_part.Shrink'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={})
    assert "my_part.Shrink" in done.stdout, done.stderr
