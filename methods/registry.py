"""The parts that methods are made of, by name: our own, those of installed packages, and any class by its dotted path.

A package of yours offers parts by an entry point of the group `continual_orchestrator.methods`; a name of ours cannot be taken.
A dotted path (`my_package.my_module.MyPlugin`, or with a colon before the class) needs no package: its module must be
importable wherever the method is built, so on every node of a cluster too.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from methods.adapters.exssnet import Exssnet
from methods.adapters.hat import Hat
from methods.adapters.inclora import IncLora
from methods.adapters.lora import Lora
from methods.adapters.moelora import MoeLora
from methods.adapters.mora import Mora
from methods.adapters.olora import OLora
from methods.base import Method, Settings
from methods.features.fetril import Fetril
from methods.features.nmc import Nmc
from methods.features.slca import Slca
from methods.full import Full
from methods.masking.das import Das
from methods.masking.migu import Migu
from methods.masking.random_mask import RandomMask
from methods.merging.chat_vector import ChatVector
from methods.merging.fw_merging import FwMerging
from methods.merging.graftllm import Graftllm
from methods.merging.merge import Merge
from methods.prompts.l2p import L2P
from methods.prompts.lfpt5 import LFPT5
from methods.prompts.progprompt import ProgPrompt
from methods.regularisation.ewc import Ewc
from methods.regularisation.l2 import L2
from methods.regularisation.lwf import Lwf
from methods.regularisation.mas import Mas
from methods.regularisation.refresh import Refresh
from methods.replay.agem import Agem
from methods.replay.conpet import Conpet
from methods.replay.derpp import Derpp
from methods.replay.replay import Replay
from methods.routing.demix import Demix
from methods.routing.dynamic_conpet import DynamicConpet
from methods.routing.epi import Epi
from methods.routing.mocl import Mocl
from methods.routing.sapt import Sapt
from methods.subspaces.coso import Coso
from methods.subspaces.cuber import Cuber
from methods.subspaces.osf import Osf
from methods.subspaces.projection import Projection

ENTRY_POINT_GROUP = "continual_orchestrator.methods"

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "lora": Lora,
    "inclora": IncLora,
    "olora": OLora,
    "moelora": MoeLora,
    "mora": Mora,
    "hat": Hat,
    "exssnet": Exssnet,
    "epi": Epi,
    "mocl": Mocl,
    "sapt": Sapt,
    "dynamic_conpet": DynamicConpet,
    "demix": Demix,
    "osf": Osf,
    "coso": Coso,
    "progprompt": ProgPrompt,
    "l2p": L2P,
    "lfpt5": LFPT5,
    "nmc": Nmc,
    "fetril": Fetril,
    "slca": Slca,
    "migu": Migu,
    "das": Das,
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
    "cuber": Cuber,
    "merge": Merge,
    "fw_merging": FwMerging,
    "chat_vector": ChatVector,
    "graftllm": Graftllm,
}


def unknown(what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """One line about a name that is not known: the nearest one, and all that there are."""
    hint = ""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if nearest:
        hint = f" Did you mean {nearest[0]!r}?"
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}"


@functools.cache
def installed_methods() -> Mapping[str, EntryPoint]:
    """What installed packages offer, by name, not imported yet. Raises ValueError where a name is taken twice."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        other = found.get(entry.name)
        if entry.name in METHODS:
            raise ValueError(f"entry point {entry.name!r} ({entry.value}) has the name of a method of ours; rename it")
        # a package that is installed twice, as an editable one may be, says the same twice
        if other is not None and other.value != entry.value:
            raise ValueError(f"entry point {entry.name!r} stands for both {other.value} and {entry.value}; rename one")
        found[entry.name] = entry
    return found


def registered_methods() -> dict[str, type[Method]]:
    """Everything that has a short name: our own, then what installed packages offer. Raises ValueError as `method_class`."""
    found = dict(METHODS)
    for name in installed_methods():
        found[name] = method_class(name)
    return found


def method_class(name: str) -> type[Method]:
    """The class of a registered name or a dotted path. Raises ValueError, in one line, where it gives no usable class."""
    installed = installed_methods()
    if name in METHODS:
        return METHODS[name]
    # before dotted paths: an entry point may well have a dot in its name
    if name in installed:
        return _load(installed[name].value, shown=f"{name} ({installed[name].value})")
    if is_dotted_path(name):
        return _load(name, shown=name)
    known = [*METHODS, *installed]
    raise ValueError(unknown("method part", name, known) + ", or the dotted path of a class")


def is_dotted_path(name: str) -> bool:
    """Whether a name says where its class is, instead of being registered."""
    return "." in name or ":" in name


def full_name(name: str) -> str:
    """The name under which a part's settings go into cache keys: ours as it is, another's with its module.

    Two packages may well offer a `shrink`, and their checkpoints must not be taken for each other's.
    """
    if name in METHODS:
        return name
    found = method_class(name)
    for own_name, own_class in METHODS.items():
        # our own class by its path trains the same weights as by its name
        if found is own_class:
            return own_name
    return f"{found.__module__}.{found.__qualname__}"


def _load(path: str, shown: str) -> type[Method]:
    """The class at a dotted path."""
    module_name, class_name = _split(path)
    module = _import(module_name, shown)
    if not hasattr(module, class_name):
        classes = []
        for name, value in vars(module).items():
            if isinstance(value, type):
                classes.append(name)
        raise ValueError(f"{shown}: " + unknown(f"class of module {module_name}", class_name, classes))
    found = getattr(module, class_name)
    if not isinstance(found, type) or not issubclass(found, Method):
        raise ValueError(f"{shown}: it is no class that derives from methods.Method or methods.TuningMethod")
    settings = getattr(found, "Settings", None)
    if not isinstance(settings, type) or not issubclass(settings, Settings):
        raise ValueError(f"{shown}: its `Settings` must be a class that derives from methods.Settings")
    return found


def _split(path: str) -> tuple[str, str]:
    """(module, class) of `module.Class` or `module:Class`."""
    module_name, colon, class_name = path.partition(":")
    if not colon:
        module_name, _, class_name = path.rpartition(".")
    if not module_name or not class_name:
        raise ValueError(f"{path}: expected my_package.my_module.MyPlugin or my_package.my_module:MyPlugin")
    return module_name, class_name


def _import(module_name: str, shown: str) -> Any:
    # A console script, unlike `python -m`, does not look for modules where the user stands. Ray's workers do. Last in the
    # path, so that a file there never hides an installed package.
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # the module may exist, and what it imports not
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"{shown}: importing {module_name} failed: {error}") from error
        raise ValueError(
            f"{shown}: there is no module {error.name!r}; install its package, or have its folder in PYTHONPATH"
        ) from error
    # whatever a user's module does while it is imported, the user needs one line that says where
    except Exception as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise ValueError(f"{shown}: importing {module_name} failed: {type(error).__name__}: {reason}") from error
